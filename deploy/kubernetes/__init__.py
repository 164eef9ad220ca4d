"""Manifests for Kubernetes, and the one that is made from deploy/prometheus."""
