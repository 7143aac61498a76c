"""What examples/ and benchmarks/ share: stages of commands, answers, files, the machine, MiniLM."""
