"""The page people read of a run, its words, its charts and its explorer."""
