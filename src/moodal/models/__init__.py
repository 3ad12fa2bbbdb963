"""The zoo: one paper, one file; ``create_model`` makes any of them by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moodal.models.av_mc import AVMC
from moodal.models.base import FusionModel, Output
from moodal.models.controls import LFDNN, LateAverage, Unimodal
from moodal.models.discriminant import LDA, LDAProduct, LDAStacking
from moodal.models.ef_lstm import EFLSTM
from moodal.models.graph_mfn import GraphMFN
from moodal.models.lmf import LMF
from moodal.models.mfn import MFN
from moodal.models.misa import MISA
from moodal.models.mre import MRE
from moodal.models.mre_plus import MREPlus
from moodal.models.mult import MulT
from moodal.models.prior import Prior
from moodal.models.self_mm import SelfMM
from moodal.models.tfn import TFN
from moodal.types import InputError, Task, unknown


@dataclass(frozen=True)
class Entry:
    """A model by name: its class, the name a table prints, the options that the name fixes, and whether it is trained
    when nobody says which (some of the zoo take minutes per epoch)."""

    cls: type[FusionModel]
    title: str
    fixed: Mapping[str, Any]
    by_default: bool = True


def _entry(cls: type[FusionModel], title: str, **fixed: Any) -> Entry:
    return Entry(cls, title, fixed)


def _on_demand(cls: type[FusionModel], title: str) -> Entry:
    return Entry(cls, title, {}, by_default=False)


MODELS: dict[str, Entry] = {
    "mre": _entry(MRE, "MRE"),
    "mre_plus": _entry(MREPlus, "MRE+"),
    "mre_baseline": _entry(MRE, "MRE without both losses", w_rs=0.0, w_cnce=0.0),
    "mre_rs": _entry(MRE, "MRE, L_rs only", w_cnce=0.0),
    "mre_cnce": _entry(MRE, "MRE, L_cnce only", w_rs=0.0),
    "lmf": _entry(LMF, "LMF"),
    "tfn": _on_demand(TFN, "TFN"),
    "ef_lstm": _on_demand(EFLSTM, "EF-LSTM"),
    "mfn": _on_demand(MFN, "MFN"),
    "graph_mfn": _on_demand(GraphMFN, "Graph-MFN"),
    "mult": _on_demand(MulT, "MulT"),
    "misa": _on_demand(MISA, "MISA"),
    "self_mm": _on_demand(SelfMM, "Self-MM"),
    "av_mc": _on_demand(AVMC, "AV-MC"),
    "lf_dnn": _entry(LFDNN, "LF-DNN"),
    "late_average": _entry(LateAverage, "late average"),
    "text_only": _entry(Unimodal, "text only", modality="text"),
    "audio_only": _entry(Unimodal, "audio only", modality="audio"),
    "vision_only": _entry(Unimodal, "vision only", modality="vision"),
    "lda": _entry(LDA, "LDA on the concatenation"),
    "lda_product": _entry(LDAProduct, "product of LDA experts"),
    "lda_stacking": _entry(LDAStacking, "stacked LDA experts"),
    "prior": _on_demand(Prior, "prior (no training)"),
}


def options_of(name: str) -> dict[str, Any]:
    """The options a model takes, with their defaults; those its name fixes are left out."""
    entry = MODELS.get(name)
    if entry is None:
        raise unknown("model", name, MODELS)
    found: dict[str, Any] = {}
    for cls in entry.cls.__mro__:  # a subclass passes its **inputs or **options on to its parent
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        keyword = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        found = {**keyword, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break  # it passes nothing on
    found.pop("columns", None)  # not the user's to choose
    return {k: v for k, v in found.items() if k not in entry.fixed and v is not inspect.Parameter.empty}


def chosen_models(names: Sequence[str] | None, dims: Mapping[str, int], task: Task) -> list[str]:
    """``names`` as they are; for None those trained by default, for "all" the whole zoo, as far as they fit."""
    if names is not None and list(names) != ["all"]:
        return list(names)
    return [n for n in suitable_models(dims, task) if names is not None or MODELS[n].by_default]


def suitable_models(dims: Mapping[str, int], task: Task) -> list[str]:
    """The models that these modalities and this task allow, in the order of the zoo.

    What reads columns by name is never among them: most data sets name none, so it waits until it is asked for.
    """
    return [
        name
        for name, entry in MODELS.items()
        if not entry.cls.reads_columns
        and entry.fixed.get("modality", next(iter(dims))) in dims
        and (task.classes or not entry.cls.closed_form)
    ]


def create_model(
    name: str, dims: Mapping[str, int], task: Task, columns: Mapping[str, Sequence[str]] | None = None, **options: Any
) -> FusionModel:
    """The model called ``name`` for these feature sizes and this task; an unknown name or option is an error.

    columns: what each number of a step is called, by modality; only models that say ``reads_columns`` hear of it.
    """
    known = options_of(name)
    for key in options:
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        _check_number(key, options[key])
    entry = MODELS[name]
    named: dict[str, Any] = {"columns": columns} if entry.cls.reads_columns else {}
    return entry.cls(dims, task, **named, **entry.fixed, **options)


def _check_number(key: str, value: Any) -> None:
    """Whole numbers are sizes; numbers with decimals are loss weights, temperatures and dropout rates."""
    if type(value) is int and value < 1:
        raise InputError(f"{key} must be at least 1, got {value}")
    is_share = key.endswith("dropout")
    if type(value) is float and not 0 <= value < (1 if is_share else math.inf):
        raise InputError(f"{key} must be at least 0 and {'below 1' if is_share else 'finite'}, got {value}")


__all__ = ["MODELS", "FusionModel", "Output", "chosen_models", "create_model", "options_of", "suitable_models"]
