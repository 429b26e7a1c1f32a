"""Which sequences a step runs, and the pages of their keys and values. Imports errors alone."""
