"""Backbone features to the features heads read."""
