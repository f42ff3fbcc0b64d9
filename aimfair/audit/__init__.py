"""How far can a set of synthetic faces be trusted? Measurements, judges, and the sheet that tells what they found."""
