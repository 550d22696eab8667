"""How fast the engine is here, against what the core could do."""
