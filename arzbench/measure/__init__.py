"""What one unit of each phase costs here: fresh processes, whole cycles, raw values kept."""
