"""The `assay` command. Every heavy import happens inside the command that needs it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# flag -> the declaration's key that it sets; the flags are the seeds' names for them
ALIASES = {
    "--model": "source.model",
    "--revision": "source.revision",
    "--batch-size": "source.batch_size",
    "--max-length": "source.max_length",
    "--dtype": "source.dtype",
    "--quantize": "source.quantize",
    "--device": "source.device",
    "--layers": "source.layers",
    "--n-experts": "trace.n_experts",
    "--top-k": "trace.top_k",
    "--moe-layers": "trace.moe_layers",
    "--leave-out-first": "trace.leave_out_first",
    "--format": "trace.format",
    "--mapping": "trace.mapping",
    "--num-samples": "corpus.num_samples",
    "--dataset": "corpus.name",
    "--corpus-path": "corpus.path",
    "--frequency-threshold": "analysis.frequency_threshold",
    "--entropy-threshold": "analysis.entropy_threshold",
    "--seed": "seed",
}
NUMBERS = ("trace.n_experts", "trace.top_k", "trace.moe_layers", "trace.leave_out_first",
           "source.batch_size", "source.max_length", "corpus.num_samples", "analysis.frequency_threshold", "seed")
NOISY = ("torchao", "torch.utils._pytree", "bitsandbytes")  # remarks at import about kernels that other machines have
ALIAS_HELP = {
    "--model": "hub id or checkpoint directory",
    "--layers": "MoE layers to capture, such as 0,3,7",
    "--n-experts": "with --trace: experts of a layer, where the file does not say",
    "--top-k": "with --trace: choices of a token, where the file does not say",
    "--moe-layers": "with --trace: how many MoE layers the model has, where the file does not say",
    "--leave-out-first": "with --trace: rows at the beginning of every document, such as those of a chat template",
    "--format": "with --trace: name of the format, where content does not tell",
    "--mapping": "with --trace: TOML file that says what the columns of a plain table mean",
    "--quantize": "8bit or 4bit: the experts, really, or refused",
    "--dataset": "six_domains, jsonl, parquet, text, or datasets",
    "--entropy-threshold": "with its unit: '0.5 nats at 8 experts', '0.72 bits at 8 experts', '0.24 of ln E'",
}


def parser() -> argparse.ArgumentParser:
    """The command line; `assay COMMAND --help` explains each."""
    from experiments import importing

    top = argparse.ArgumentParser(prog="assay", description="Put hypotheses about mixture-of-experts routing to the test.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run an experiment: collect, analyse, sweep, judge, report, publish")
    run.add_argument("experiment", help="a name in experiments/declared, or a TOML file")
    run.add_argument("--profile", default=None, help="quick, full, gpu or tiny")
    run.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a declared value (recorded)")
    run.add_argument("--new", action="store_true", help="a new run even where one with this declaration exists")
    for flag, key in ALIASES.items():
        run.add_argument(flag, default=None, metavar="VALUE", help=f"{ALIAS_HELP.get(flag, 'the same as')} (--set {key}=VALUE)")

    run.add_argument("--accept", action="append", default=[], metavar="CODE", help="a finding of the audit that does no harm here (recorded; the "
                     "same as audit.accept in the declaration)")
    run.add_argument("--trace", nargs="+", default=None, metavar="PATH", help="routing that was recorded elsewhere, in place of corpus and "
                     "model (--set trace.paths=[..]; what files do not say: --n-experts, --set trace.model=.., ...)")

    _add_trace_commands(commands)
    for name, words in (("resume", "go on with an interrupted run"), ("report", "write a run's figures and report again"),
                        ("publish", "log a run to MLflow (again)")):
        command = commands.add_parser(name, help=words)
        command.add_argument("run", help="run directory, or its name under the root")

    corpus = commands.add_parser("corpus", help="show an experiment's corpus; --create-splits writes its three splits as JSONL")
    corpus.add_argument("experiment")
    corpus.add_argument("--profile", default=None)
    corpus.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    corpus.add_argument("--create-splits", metavar="DIRECTORY", default=None)

    commands.add_parser("list", help="experiments, hypotheses and runs")
    commands.add_parser("check", help="declarations against the register; fails if one changed since it was registered")
    register = commands.add_parser("register", help="record the present declaration of a hypothesis, with the date")
    register.add_argument("hypothesis")

    doctor = commands.add_parser("doctor", help="what a model's routers look like, and whether it fits and conforms")
    doctor.add_argument("model", help="hub id or checkpoint directory")
    for flag in ("--revision", "--dtype", "--quantize", "--device"):
        doctor.add_argument(flag, default=None)

    measure = commands.add_parser("measure", help="every number that a trace gives: value, interval, null, or the reason why there is none")
    measure.add_argument("trace", help="run (directory or name), trace directory, or a file or folder that `assay import` knows")
    measure.add_argument("--split", default="test", help="documents to describe: train, calibration or test")
    measure.add_argument("--only", action="append", choices=("usage", "domains", "layers", "sequence"), help="a section (all, if not given)")
    measure.add_argument("--seed", type=int, default=0, help="of every random draw")
    measure.add_argument("--shifts", type=int, default=199, help="circular shifts behind each null (999 for a judged family)")
    measure.add_argument("--accept", action="append", default=[], metavar="CODE", help="a finding of `assay inspect` that does no harm here: the "
                         "numbers that it would invalidate are not marked")
    measure.add_argument("--out", metavar="FILE", help="write the rows as .csv or .json")
    importing.add_reading(measure)
    metrics = commands.add_parser("metrics", help="every metric: definition, unit, interval, when it is undefined, source")
    metrics.add_argument("id", nargs="?", help="one metric in full")

    ui = commands.add_parser("ui", help="the MLflow page of the runs")
    ui.add_argument("--port", type=int, default=5000)
    return top


def _add_trace_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands on traces as they are, ours and other people's."""
    from experiments import exporting, importing, inspecting, predictor_commands, sampling, type_table

    predictor_commands.add_commands(commands)
    for name, module, words in (
            ("import", importing, "somebody else's trace as one of ours, with its provenance and what was met"),
            ("inspect", inspecting, "what is wrong with a trace: count, share, consequence and remedy of each finding"),
            ("sample", sampling, "cut a small trace from a large one: whole documents, stratified by domain"),
            ("export", exporting, "a trace's counts in the forms that placement and caching tools read"),
            ("var-table", type_table, "judge VAR on a table of token types (routing_stats), and draw the seed's four figures from it")):
        module.add_arguments(commands.add_parser(name, help=words))


def toml_value(key: str, text: str) -> str:
    """A flag's text as a TOML value: numbers bare where the key holds a number, layers as a list, everything else a string."""
    if key == "source.layers":
        return "[" + ",".join(text.replace(",", " ").split()) + "]"
    if key in NUMBERS:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """`--set` texts, with the seed-named flags turned into the same form."""
    chosen = list(arguments.overrides)
    for flag, key in ALIASES.items():
        value = getattr(arguments, flag.lstrip("-").replace("-", "_"))
        if value is not None:
            chosen.append(f"{key}={toml_value(key, value)}")
    if arguments.accept:
        chosen.append(f"audit.accept=[{', '.join(toml_value('audit.accept', code) for code in arguments.accept)}]")
    if arguments.trace:
        paths = ", ".join(toml_value("trace.paths", str(Path(path).resolve())) for path in arguments.trace)
        chosen.append(f"trace.paths=[{paths}]")
    return chosen


def root() -> Path:
    """Where runs and caches live: $ASSAY_ROOT, or ./runs; absolute, so that nothing depends on where a command is typed."""
    return Path(os.environ.get("ASSAY_ROOT", "runs")).resolve()


def dispatch(arguments: argparse.Namespace) -> int:
    """Carry out one command and return its exit status."""
    from experiments import commands, exporting, importing, inspecting, predictor_commands, sampling, type_table

    plain: dict[str, Callable[[], int]] = {
        "resume": lambda: commands.resume(root(), arguments.run),
        "report": lambda: commands.report(root(), arguments.run),
        "publish": lambda: commands.publish(root(), arguments.run),
        "import": lambda: importing.run(arguments),
        "inspect": lambda: inspecting.run(root(), arguments),
        "sample": lambda: sampling.run(root(), arguments),
        "export": lambda: exporting.run(root(), arguments),
        "var-table": lambda: type_table.run(arguments),
        "corpus": lambda: commands.corpus(root(), arguments.experiment, arguments.profile or "quick", arguments.overrides, arguments.create_splits),
        "list": lambda: commands.show(root()),
        "check": commands.check,
        "register": lambda: commands.register(root(), arguments.hypothesis),
        "doctor": lambda: commands.doctor(arguments),
        "measure": lambda: commands.measure(root(), arguments),
        "predict": lambda: predictor_commands.predict(root(), arguments),
        "compare": lambda: predictor_commands.compare(root(), arguments),
        "metrics": lambda: commands.metrics(arguments.id),
        "ui": lambda: commands.ui(root(), arguments.port),
    }
    if arguments.command in plain:
        return plain[arguments.command]()
    from experiments.declaration import choose_profile

    profile = choose_profile(arguments.profile, arguments.model)
    return commands.run(root(), arguments.experiment, profile, overrides_of(arguments), new=arguments.new)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; a refusal prints its reason and remedy and exits with 1 (2 for wrong usage)."""
    arguments = parser().parse_args(argv)
    # Threads that spin while they wait starve each other on a busy machine: 1,200 tokens/s on two cores against 13,600 with this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return dispatch(arguments)
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("ASSAY_TRACEBACK"):
            raise
        print(f"assay: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
