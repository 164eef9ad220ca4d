"""Grafana dashboards as code: one file for each, `python -m deploy.grafana.generate` writes their JSON."""
