"""A CSV of some thousand orders goes into a sandbox, a Python program analyses it there, a report
comes out. Uses the stock SDK (`pip install e2b`) and nothing else:

    set -a; . /var/lib/casemate/credentials.env
    python examples/analyse_csv.py
"""

import csv
import io
import json
import pathlib
import random
import sys
import time
from datetime import date, timedelta

from e2b import Sandbox

PROGRAM = pathlib.Path(__file__).parent / "analyse_csv" / "analysis.py"
CITIES = {"Leipzig": 5, "Porto": 3, "Kraków": 4, "Gent": 2, "Tartu": 1}
PRODUCTS = {"lamp": 39.9, "chair": 129.0, "desk": 349.0, "shelf": 89.5, "rug": 59.95}


def make_orders(count, seed):
    """Orders as a shop exports them: a season, a trend, and the usual dirt."""
    dice = random.Random(seed)
    cities, weights = zip(*CITIES.items())
    orders = []
    for number in range(count):
        day = date(2025, 1, 1) + timedelta(days=int(365 * dice.random() ** 0.8))
        product = dice.choice(list(PRODUCTS))
        price = f"{PRODUCTS[product] * dice.uniform(0.8, 1.1):.2f}"
        if dice.random() < 0.02:
            price = price.replace(".", ",")
        quantity = "" if dice.random() < 0.01 else str(dice.randint(1, 6))
        city = dice.choices(cities, weights)[0]
        orders.append([f"A{number:06}", day.isoformat(), city, product, quantity, price])
        if dice.random() < 0.005:
            orders.append(orders[-1])
    return orders


def main():
    orders = make_orders(count=6000, seed=20250101)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["order", "date", "city", "product", "quantity", "price"])
    writer.writerows(orders)

    begun = time.monotonic()
    with Sandbox.create(timeout=120) as sandbox:
        created = time.monotonic()
        sandbox.commands.run("true")
        first = time.monotonic()
        print(f"sandbox {sandbox.sandbox_id}: created in {1000 * (created - begun):.0f} ms, "
              f"first command after {1000 * (first - begun):.0f} ms")

        sandbox.files.write("orders.csv", text.getvalue())
        sandbox.files.write("analysis.py", PROGRAM.read_text())
        sandbox.commands.run("python3 analysis.py")
        report = json.loads(sandbox.files.read("report.json"))
        print(f"{len(orders)} rows went in; this came out:\n")
        print(sandbox.files.read("report.txt"))

    if report["rows"] != len(orders) or not 0 < report["orders"] < len(orders):
        sys.exit(f"the report does not fit what went in: {report}")


main()
