"""`posecli review`: a page on this machine to correct a run's predictions."""
