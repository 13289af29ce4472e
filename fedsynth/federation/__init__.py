"""Hospitals that train together and exchange no image: apps, engines, what a site decides. Only importer of flwr."""
