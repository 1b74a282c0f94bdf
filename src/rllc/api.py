"""Measuring from a notebook: one call, a result with its error, its health and its traces.

`rllc.estimate` measures parts of one model on one kind of data, `rllc.sweep` a grid of checkpoints, data and parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack, overload

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.runs.estimating import grouped, measured, open_data, step_of
from rllc.runs.how import Settings, how_from
from rllc.runs.padding import is_padded
from rllc.runs.progress import Reporter
from rllc.runs.results import Result, Results
from rllc.runs.roads import SEVERAL, Parts, take_road
from rllc.runs.sweeping import Sweep, listed


@overload
def estimate(
    model: Any,
    data: Any,
    part: str = "full",
    *,
    step: int | None = None,
    data_name: str = "data",
    evaluate_on: Mapping[str, Any] | None = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> Result: ...
@overload
def estimate(
    model: Any,
    data: Any,
    part: Parts = "full",
    *,
    step: int | None = None,
    data_name: str = "data",
    evaluate_on: Mapping[str, Any] | None = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> Result | Results: ...
def estimate(
    model: Any,
    data: Any,
    part: Parts = "full",
    *,
    step: int | None = None,
    data_name: str = "data",
    evaluate_on: Mapping[str, Any] | None = None,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> Result | Results:
    """The local learning coefficient of a part of a model on some data, or of several parts at once.

    Where nothing else is said, the sampler's settings are those that the paper used for its two-layer model: step_size 1e-3, localization 200,
    nbeta 30, 4 chains of 200 draws, no burn-in, batches of 32. They are a place to start from, not an answer for another model: read `outcome`,
    `reason` and `diagnostics` before the number; larger models want smaller steps.

    Args:
        model: any of

            - a model of rllc's own family: an object with `shape` and `params`, or the folder of a checkpoint, ours or one that can become ours;
            - a torch module with `loss=`: any network at all. It is called as it is, in evaluation mode unless `train_mode` says otherwise;
            - a language model of another library without a loss. It is converted and takes the fast native road where it can, else it is called as
              it is; `road="native"` or `"general"` insists, and the result says which was taken, and why.
        data: of a language model token ids [n, T], texts (with `tokenizer=`), a data set (with `column=` where it is not called input_ids or text),
            a mapping of input_ids and attention_mask, a `rllc.Refined`, a `rllc.Mixed`, a streamed data set or another stream of texts, the path of
            a file (.jsonl, .parquet, text), or a `rllc.corpus.batches.ContextPool`; of a module with a loss a tensor or a tuple of tensors with
            samples along the first axis, or a data set of samples by number; of both a function from a whole number to the batch of that number.
            Minibatches are drawn with replacement.
        part: a part, "1:6" or "heads" or "1.attn" for example (`rllc.core.names.Part`), or several in a list; "random" is a control, one part of
            random weights in every layer, each as large as a head. Of a module with a loss the names of
            parameters and slices of them, "fc1.weight[:, 64:128]", a list being one part; several parts are then a mapping of name to such lists.
        step: training step of the checkpoint, for the tables; 0 unless the model knows it.
        data_name: what tables call the data. Minibatches are seeded by it too: equal names, equal batches.
        evaluate_on: other data by name. The chains move by `data` alone, as they would without; what nβ (E[l] - l(w*)) is on the other data is in
            the result's `elsewhere` and in its tables, where `data` and `evaluated_on` then differ. That is no learning coefficient of the other
            data, which takes the posterior of its own.
        progress: show a bar with the time left, on a terminal and in a notebook that has ipywidgets.
        settings: sampler ("sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht", "mala", or a `SamplerSettings` that says everything), step_size ε,
            localization γ, nbeta nβ, chains, draws (a chain), burn_in, and the samplers' own; batch_size; origin_batches (minibatches at the
            checkpoint itself, for the tilt and the unpaired estimate; 0 for none); fixed_contexts (evaluate every draw on one fixed set of so many);
            share_contexts (tell in `token_shares` what each token of so many contexts adds to λ̂ there; a fixed set of as many holds the same ones);
            full_batch (of MALA); control_batches; seed; stopping, checks, verdicts (of `rllc.posterior.settings`); road; loss (module, batch → nats);
            train_mode; tokenizer, column, context, documents ("packed" or "one a row"), most_contexts (of texts and
            streams), collate (of the data); dtype, device, products; chunk (most variants of a pass), or memory
            (megabytes of one, from which the chunk is chosen; 0 for what is free).

    Returns:
        A `Result` for one part, `Results` for several: where a list, a mapping or "heads" was given.

    Raises:
        RllcError: model, data, part or settings are none that can be sampled; the sentence says what to do.

    A part of any module, here the weights of a quadratic loss around its minimum:

    >>> import torch, rllc
    >>> class Bowl(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))
    >>> def loss(module, batch):
    ...     return 0.5 * (module.w**2).sum() + 0 * batch.mean()
    >>> r = rllc.estimate(Bowl(), torch.zeros(4, 1), "w", loss=loss, step_size=1e-2, localization=1.0, draws=100, burn_in=20, batch_size=2)
    >>> r.part, r.road, r.traces.losses.shape
    ('w', 'general', (1, 4, 121))
    >>> r.interval[0] < r.llc < r.interval[1]
    True

    Two heads of a language model, measured in one pass:

    >>> from rllc.model.forward import init_params
    >>> class Tiny:
    ...     shape = rllc.ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=11, n_ctx=6)
    ...     params = init_params(shape, 0)
    >>> tokens = torch.randint(0, 11, (20, 6), generator=torch.Generator().manual_seed(0))
    >>> rs = rllc.estimate(Tiny(), tokens, ["0:0", "0:1"], chains=2, draws=8, batch_size=4, origin_batches=3)
    >>> list(rs), rs["0:1"].outcome in list(type(rs["0:1"].outcome))
    (['0:0', '0:1'], True)
    >>> rs.to_pandas()[["part", "sampler", "draws"]].values.tolist()
    [['0:0', 'sgld', 8], ['0:1', 'sgld', 8]]
    """
    how = how_from(settings)
    taken = take_road(model, how)
    asked = taken.parts(part)
    source = open_data(data, data_name, taken, how)
    at = step_of(taken, step)
    if data_name in (evaluate_on or {}):
        raise RllcError(f"evaluate_on names {data_name!r}, as the data is called that the chains move by.", "Give it another name, or data_name=.")
    others = [open_data(other, name, taken, how) for name, other in (evaluate_on or {}).items()]
    groups = grouped(taken, asked, how, source.context)
    reporter = Reporter(quiet=not progress)
    reporter.quiet = not reporter.draws_bars  # a line for every number would drown a script's own
    found: dict[str, Result] = {}
    with reporter.stage("Sampling", float(len(groups))) as bar:
        for group in groups:
            found |= {r.part: r for r in measured(taken, group, source, how, at, bar.within(1.0), others)}
    results = Results(tuple(found[one.label] for one in asked))
    one_part = len(asked) == 1 and not isinstance(part, Mapping) and part not in SEVERAL
    # a list of parameters is one part, a list of one name of our grammar a list of parts
    return results.cells[0] if one_part and (isinstance(part, str | Part) or asked[-1].part is None) else results


def sweep(
    checkpoints: Any,
    data: Any,
    parts: Parts = "heads",
    *,
    evaluate_on: Mapping[str, Any] | None = None,
    progress: bool = True,
    data_name: str = "data",
    **settings: Unpack[Settings],
) -> Sweep:
    """A grid of checkpoints × data × parts, measured as its results are asked for.

    Args:
        checkpoints: a mapping or an iterable of (step, model), where a model may also be a function that gives it, called when its turn comes; a
            folder of checkpoints, of ours or of another library; a `rllc.checkpoints.series.Series`; or one model. Models are as `estimate` takes
            them, and opened one at a time.
        data: a mapping of names to data as `estimate` takes it, or one of them.
        parts: as of `estimate`.
        evaluate_on: other data by name, as of `estimate`; cells that are sampled on data of that name are not evaluated on it once more.
        progress: show a bar with the time left on a terminal, plain lines elsewhere.
        data_name: what one kind of data is called, where `data` is no mapping.
        settings: as of `estimate`, the same for all cells, so that differences between them share noise and minibatches.

    Returns:
        A `Sweep`: iterate over it for results as they are done, or call `run()`. An interrupt keeps what is done in `results`.

    Raises:
        RllcError: settings or checkpoints are none; models and data are looked at when their turn comes.

    >>> import torch, rllc
    >>> from rllc.model.forward import init_params
    >>> class Tiny:
    ...     shape = rllc.ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=11, n_ctx=6)
    ...     def __init__(self, seed):
    ...         self.params = init_params(self.shape, seed)
    >>> tokens = torch.randint(0, 11, (20, 6), generator=torch.Generator().manual_seed(0))
    >>> grid = rllc.sweep({0: lambda: Tiny(0), 100: lambda: Tiny(1)}, tokens, "0:0", progress=False, chains=2, draws=8, batch_size=4)
    >>> [(r.step, r.part) for r in grid]
    [(0, '0:0'), (100, '0:0')]
    >>> grid.results.differences("step")[["a", "b", "aligned"]].values.tolist()
    [['100', '0', True]]
    """
    named = data if isinstance(data, Mapping) and not is_padded(data) else {data_name: data}
    return Sweep(listed(checkpoints), named, parts, how_from(settings), Reporter(quiet=not progress), evaluate_on or {})
