"""The loop: propose, select, label, train, until the model knows enough or the budget is spent."""
