"""Are the predictions right? Real trainings, each predicted from its own calibration first, scored."""
