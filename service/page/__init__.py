"""The gateway's own page: what is answered by whom and why, live, in a browser."""
