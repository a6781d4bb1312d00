"""Losses as functions of tensors: they know shapes, not methods, devices, steps or files."""
