"""What the evidence means: controls, figures, verdicts."""
