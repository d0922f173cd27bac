"""Domains: named parts with a measure, an even map from the unit cube, and outward normals."""
