"""Where prompts come from and what is done to them before answers are sampled."""
