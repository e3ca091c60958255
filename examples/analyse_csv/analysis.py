"""Runs inside the sandbox: reads orders.csv, writes report.json and report.txt.

Only the standard library, so that nothing has to be installed first.
"""

import csv
import json
import statistics
from collections import defaultdict
from datetime import date


def clean(rows):
    """Drops what cannot be used, and orders that were exported twice."""
    seen, kept, dropped = set(), [], defaultdict(int)
    for row in rows:
        if row["order"] in seen:
            dropped["duplicate"] += 1
            continue
        seen.add(row["order"])
        try:
            quantity, price = int(row["quantity"]), float(row["price"].replace(",", "."))
            day = date.fromisoformat(row["date"])
        except ValueError:
            dropped["unreadable"] += 1
            continue
        kept.append({**row, "day": day, "amount": round(quantity * price, 2)})
    return kept, dict(dropped)


def main():
    with open("orders.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    orders, dropped = clean(rows)

    by_city, by_month, by_product = defaultdict(float), defaultdict(float), defaultdict(float)
    for order in orders:
        by_city[order["city"]] += order["amount"]
        by_month[order["day"].strftime("%Y-%m")] += order["amount"]
        by_product[order["product"]] += order["amount"]
    amounts = [order["amount"] for order in orders]
    report = {
        "rows": len(rows),
        "orders": len(orders),
        "dropped": dropped,
        "revenue": round(sum(amounts), 2),
        "median": round(statistics.median(amounts), 2),
        "p95": round(statistics.quantiles(amounts, n=20)[-1], 2),
        "best_city": max(by_city, key=by_city.get),
        "best_product": max(by_product, key=by_product.get),
    }
    with open("report.json", "w", encoding="utf-8") as file:
        json.dump(report, file)

    widest = max(by_month.values())
    with open("report.txt", "w", encoding="utf-8") as file:
        print(f"{len(orders)} orders, {report['revenue']:,.2f} in all", file=file)
        for reason, count in sorted(dropped.items()):
            print(f"  {count} rows left out: {reason}", file=file)
        print("\nrevenue by month", file=file)
        for month, amount in sorted(by_month.items()):
            bar = "#" * round(40 * amount / widest)
            print(f"  {month} {amount:>12,.2f} {bar}", file=file)
        print("\nrevenue by city", file=file)
        for city, amount in sorted(by_city.items(), key=lambda item: -item[1]):
            print(f"  {city:<10} {amount:>12,.2f}", file=file)


main()
