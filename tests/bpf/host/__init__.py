"""The datapath as a program of the host, under ASan and UBSan."""
