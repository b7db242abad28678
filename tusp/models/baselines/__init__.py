"""Classical baselines: what a network has to beat. Fitted to whole nights with numpy, scipy and scikit-learn."""
