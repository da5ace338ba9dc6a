"""What leaves the house: the dataset, its SWHID list, and the cards of the dataset and the model."""
