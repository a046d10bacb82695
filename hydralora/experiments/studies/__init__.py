"""Studies: questions that are answered by many ordinary runs, each declared in one file (`declared/`)."""
