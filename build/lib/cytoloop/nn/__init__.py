"""The U-Net: data, losses, training, prediction, weights. torch lives here."""
