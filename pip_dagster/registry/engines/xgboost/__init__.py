"""XGBoost: model files, signatures and scoring."""
