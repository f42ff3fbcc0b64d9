"""Everything around a text-to-image model that draws many faces: loading it, sharing the work, what it costs, its records."""
