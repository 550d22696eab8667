"""What a training will take: counted phases times measured prices. Pure functions, no files, no clock."""
