"""Every exact answer of METHOD 3, sampled: cases fixed beforehand, and the run that compares."""
