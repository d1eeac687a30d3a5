"""What following the doctor's advice gains: tips of taxi trips, of which many are exactly 0, and others repeat.

    python benchmarks/doctor.py [--splits 3] [--preset plain]

A model is fitted as it comes and diagnosed on half of the held-out trips. It warns of values that repeat; the second
model follows that advice and nothing else. Both are judged on the other half, by CRPS, which compares densities with
and without atoms, and by the share of the trips within the central 50% interval.
"""

import argparse
import warnings

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from mixtura import MDNRegressor, MixturaWarning, crps, datasets

FEATURES = ["hour", "weekday", "passenger_count", "payment_type", "trip_distance_mi", "fare_usd"]
"""All are known when the tip is given."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--preset", default="plain")
    options = parser.parse_args()
    warnings.simplefilter("ignore", MixturaWarning)  # which says at once what the doctor is to find
    trips = datasets.load_taxi()
    for split in range(options.splits):
        train, rest = train_test_split(trips, test_size=0.4, random_state=split)
        valid, test = train_test_split(rest, test_size=0.5, random_state=split)
        for way, settings in {"as it comes": {}, 'atoms="auto"': {"atoms": "auto"}}.items():
            model = MDNRegressor(preset=options.preset, random_state=split, **settings)
            model.fit(train[FEATURES], train["tip_usd"])
            found = model.diagnose(valid[FEATURES], valid["tip_usd"])
            mixture, y = model.predict_dist(test[FEATURES]), torch.tensor(test["tip_usd"].to_numpy(float))
            losses = crps(mixture, y, reduction="none").numpy()
            low, high = model.predict_interval(test[FEATURES], 0.5).T
            inside = np.mean((low <= y.numpy()) & (y.numpy() <= high))
            print(f"split {split}, {way}: CRPS {losses.mean():.4f} ± {losses.std() / len(y) ** 0.5:.4f} USD,", end=" ")
            print(f"width of the 50% interval {np.mean(high - low):.3f}, {inside:.1%} of the trips in it", flush=True)
            print(*(f"    {one}" for one in found.warnings), sep="\n")


if __name__ == "__main__":
    main()
