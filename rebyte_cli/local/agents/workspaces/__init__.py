"""The folders in which agents work: made, set up, kept in step with the source, made safe."""
