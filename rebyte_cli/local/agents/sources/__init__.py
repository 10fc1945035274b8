"""Where what an agent works with comes from: repositories, objects that they share, and skills."""
