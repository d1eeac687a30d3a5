"""What following the doctor's advice gains: tips of taxi trips, of which many are exactly 0, and others repeat.

    python benchmarks/doctor.py [--splits 2] [--preset plain]

A model of normal components is fitted to 1,500 trips and diagnosed on as many others. The doctor warns of values that
repeat; the second model follows that advice and nothing else. Both are judged on the rest, by CRPS and by the Brier
score of a tip of a cent or more, which compare densities with and without atoms.
"""

import argparse
import warnings

import torch
from sklearn.model_selection import train_test_split

from mixtura import MDNRegressor, MixturaWarning, brier, crps, datasets

FEATURES = ["hour", "weekday", "passenger_count", "payment_type", "trip_distance_mi", "fare_usd"]
"""All are known when the tip is given."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--preset", default="plain")
    options = parser.parse_args()
    warnings.simplefilter("ignore", MixturaWarning)  # which says at once what the doctor is to find
    trips = datasets.load_taxi()
    for split in range(options.splits):
        train, rest = train_test_split(trips, train_size=1_500, random_state=split)
        valid, test = train_test_split(rest, train_size=1_500, random_state=split)
        before = None
        for way, settings in {"as it comes": {}, 'atoms="auto"': {"atoms": "auto"}}.items():
            model = MDNRegressor(family="normal", preset=options.preset, max_epochs=60, random_state=split, **settings)
            model.fit(train[FEATURES], train["tip_usd"])
            found = model.diagnose(valid[FEATURES], valid["tip_usd"])
            mixture, y = model.predict_dist(test[FEATURES]), torch.tensor(test["tip_usd"].to_numpy(float))
            losses = torch.stack([crps(mixture, y, reduction="none"), brier(mixture, y, 0.01, reduction="none")])
            (of_crps, of_brier), before = losses.mean(1).tolist(), losses if before is None else before
            gain, error = (before - losses).mean(1).tolist(), ((before - losses).std(1) / len(y) ** 0.5).tolist()
            print(f"split {split}, {way}: CRPS {of_crps:.4f} USD, {gain[0]:.4f} ± {error[0]:.4f} gained;", end=" ")
            print(f"Brier score {of_brier:.4f}, {gain[1]:.4f} ± {error[1]:.4f} gained", flush=True)
            print(*(f"    {one}" for one in found.warnings), sep="\n")


if __name__ == "__main__":
    main()
