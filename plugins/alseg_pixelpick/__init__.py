"""PixelPick (Shin, Xie and Albanie, ICCVW 2021): its acquirers, selectors, model and recipes."""
