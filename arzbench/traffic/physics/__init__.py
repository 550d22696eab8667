"""The two-class Aw-Rascle-Zhang (ARZ) traffic model: equations, roads and engines."""
