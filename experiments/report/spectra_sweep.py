"""The sweep over the weights of SPECTRA's losses: trials, the front, importances, and the chosen point confirmed with fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimate import Estimate
from analysis.figures.spectra_sweep import Trials, trials_figure
from analysis.figures.words import number
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Section, Table
from experiments.report.topology_columns import View


def sweep_section(view: View) -> Section | None:
    """Exploratory; None where the run had no sweep."""
    found = view.content.sweep
    if not found or "n_complete" not in found:
        return None
    trials, knobs = list(found["trials"]), list(found["knobs"])
    blocks: list[Block] = [Paragraph("On calibration documents, one training seed a trial: it shows what the weights of the losses do, chooses a "
                                     "point to look "
                                     "at, and moves no declared option and no verdict.", "warning")]
    blocks.append(Paragraph(f"{found['n_complete']} complete trials, {found['n_pruned']} stopped early. "
                            + (f"{found['reason']}." if found.get("reason") else "")))
    if trials:
        chosen = found.get("chosen") or {}
        blocks.append(Picture("spectra_sweep", trials_figure(Trials(
            [one["mi_E_D"] for one in trials], [one["loss"] for one in trials], [one["state"] == "complete" for one in trials],
            [bool(one["on_front"]) for one in trials], (chosen["mi_E_D"], chosen["loss"]) if chosen else None)),
            "Information against loss on calibration documents; stopped trials are shown where their short training ended.", "Scatter of trials."))
    rows: list[list[Cell]] = [[*(one[name] for name in knobs), one["mi_E_D"], one["loss"], one["state"], "yes" if one["on_front"] else "no",
                               one["reason"]] for one in trials]
    blocks.append(Table("sweep_trials", "Trials", [*(Column(name, "number", 4) for name in knobs), Column("I(E;D), bits", "number"),
                                                    Column("loss, nats", "number"), Column("state"), Column("on the front"), Column("why stopped")],
                                                    rows,
                        "Values of a stopped trial are those of its short training; it is never on the front."))
    importances: list[list[Cell]] = [[one["objective"], *((one["shares"] or {}).get(name) for name in knobs), one["reason"] or ""]
                                     for one in found["importances"]]
    blocks.append(Table("sweep_importances", "Share of each knob in reaching the best tenth (PED-ANOVA)",
                        [Column("objective"), *(Column(name, "number") for name in knobs), Column("reason")], importances,
                        "Of few trials: read it as a hint."))
    return Section("sweep", "Weights of SPECTRA's losses (exploratory)", [*blocks, *_confirmed(found)], "sensitivity")


def _confirmed(found: Mapping[str, Any]) -> list[Block]:
    if not found.get("confirmed"):
        return [Paragraph("The chosen point was not confirmed.", "note")]
    chosen, rows = found["chosen"], list[list[Cell]]()
    for name, words in (("mi_E_D", "I(E;D), bits"), ("loss", "held-out loss, nats")):
        fresh, judged = (found.get(where, {}).get(name) for where in ("calibration", "confirmed"))
        both = [Estimate.undefined("not recorded") if one is None else Estimate.from_json(one) for one in (fresh, judged)]
        rows.append([words, chosen[name], *both, found.get("choosing", {}).get(name), found["optimism"][name]])
    knobs = ", ".join(f"{name} {number(chosen[name], 4)}" for name in found["knobs"])
    seeds = [row["seed"] for row in found.get("fresh", ())]
    trained = f" ({', '.join(map(str, seeds))}; {found['steps']:,} steps each, as the trial)" if seeds and found.get("steps") else ""
    said = ("The trial was chosen as the best of many on calibration documents. "
            f"Step 1: the point is trained anew with fresh seeds{trained}. Step 2: these are measured on the same calibration documents; choosing = "
            "chosen trial less them, the luck of being picked. Step 3: they are measured on test documents; optimism = chosen trial less them, which "
            "holds the difference between the documents beside that luck.")
    return [Table("sweep_confirmed", f"The chosen point ({knobs}) with fresh training seeds, on calibration and on test documents",
                  [Column("quantity"), Column("chosen trial, calibration", "number"), Column("fresh seeds, calibration [95% interval]", "estimate"),
                   Column("fresh seeds, test [95% interval]", "estimate"), Column("choosing", "number"), Column("optimism", "number")], rows, said)]
