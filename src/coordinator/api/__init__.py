"""The ways in: intakes that offer commands to the engine, and the operators' door."""
