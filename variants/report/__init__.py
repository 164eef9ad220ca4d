"""The frontier report: what is known of a revision, as one page that needs no network."""
