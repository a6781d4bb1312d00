"""From maps to nuclei. No torch in here: proposals and splitting answer before it is imported."""
