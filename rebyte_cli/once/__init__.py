"""At most once: search for what a request may have created, and never send it twice."""
