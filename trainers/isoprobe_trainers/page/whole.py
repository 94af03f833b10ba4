"""Put the page together: what was run of every table and figure, and what the rest would take."""

from __future__ import annotations

from isoprobe_trainers.anomaly.experiments import EXPERIMENT as TABLE
from isoprobe_trainers.common.plan import span
from isoprobe_trainers.common.records import Record, of, records
from isoprobe_trainers.common.tables import render
from isoprobe_trainers.images.experiments import DIGITS, FACES
from isoprobe_trainers.images.train import FACES_ITERATIONS
from isoprobe_trainers.page import anomaly, beyond, images, toy
from isoprobe_trainers.toy.experiments import EXPERIMENT as TOY

_HEAD = """# The paper at its own schedule

Made by `isoprobe reproduce page` from the records of finished trainings, one JSON file each, in
`isoprobe_trainers/results`, and from nothing else. Spreads in brackets are standard deviations."""

_ANOMALY = """## Tables 3 and 6

Networks, losses, rates and epochs are Table 5's, fixed before; of the models kept at each tenth of
the schedule the one with the least objective on held-out normal rows is taken. Nothing was chosen
on seeds that are averaged here, but for KDDCup99's row with another rate: that was found in trials
on seed 0, which the row leaves out. A training that a card's time cut off is judged by the same
rule on the tenths it reached. VAE and RaDOGAGA take rows one by one, equal ones too, with a draw
each; the untrained network is one draw of weights, judged on every split. The last two columns are
the difference from the paper's mean F1 of that method, over the paper's standard deviation, and
over the standard error of the difference. The tests count every pattern of signs; splits of one
table overlap, so that their p is too small rather than too large."""

_DIGITS = """## Figure 28

Norms and residuals on training rows; the paper has norms close to 1 where E[sigma^-2] is above 10.
Spreads are over latents. Beyond the paper: cosines between the columns of used latents, and the
eigenvalues of (2/beta) S^(1/2) J'GJ S^(1/2) over them. These equal 1 - sigma^2 only where columns
are orthogonal; norms of 1 alone do not make an isometry."""

_FACES = """## Figures 4 to 6: CelebA

Faces of 32 x 32 pixels, 1 - SSIM, GDN, 32 latents, beta 0.001; the paper's have 64 x 64 and 64
channels, batches of 64 at rate 1e-3, 300,000 iterations. Norms are those of training rows. The last
column is the rank correlation of the change along a latent's walk with E[sigma^-2]."""

_TOY = """## Tables 1, 2, 4 and Figures 3, 10, 25: toy data

Each seed draws its own 50,000 rows; all are analysed. Values are by latent in order of rising
variance, then those to spare, averaged over seeds. "Within" compares with tolerances that were set
before any of these models was trained."""

_BEYOND = """## Beyond the paper: isometric by eigenvalues, and at a distance?

Norms say how long each column of the embedding is, one latent at a time. Where it is isometric, the
eigenvalues of (2/beta) S^(1/2) J'GJ S^(1/2) over the used latents are 1 - E[sigma^2] too, and
distances in y are lengths d of shortest paths. Ends of the eigenvalues are means by rank over
samples; d is taken between 60 pairs of samples, with intervals over pairs (the widest ends of all
seeds). A median near 1 is no isometry where straight lines in y are much longer than d."""

#: item -> what it shows, the experiment whose records show it (empty: none), its data set's row
_ITEMS: tuple[tuple[str, str, str], ...] = (
    ("Table 3, Table 6", "anomaly detection", TABLE),
    ("Figure 28", "MNIST, 32 and 64 latents", DIGITS),
    ("Figures 4 to 6, 26", "CelebA, 32 latents", FACES),
    ("Figure 27", "CelebA, 256 latents", ""),
    ("Tables 1, 2, 4; Figures 3, 10, 25", "toy data", TOY),
    ("Figures 13 to 24", "ablation on toy data", "ablation"),
)


def page() -> str:
    """The whole page, Markdown."""
    parts = [
        _HEAD,
        "## What was run",
        _overview(),
        _missing(),
        _ANOMALY,
        anomaly.tables(),
        _DIGITS,
        images.digits(),
        _FACES,
        images.faces(),
        _TOY,
        toy.tables(),
        _BEYOND,
        beyond.table(),
    ]
    return "\n\n".join(parts) + "\n"


def _overview() -> str:
    rows = []
    for name, about, experiment in _ITEMS:
        found = [r for r in records().values() if r.experiment == experiment]
        rows += [[f"{name}: {about}", *_row(r)] for r in found if r.planned]
        if not found:
            rows.append([f"{name}: {about}", "none at this schedule", *["-"] * 5])
    header = [
        "table or figure",
        "model",
        "schedule",
        "seeds",
        "device",
        "date",
        "F1 - paper, in SD",
    ]
    return render(header, rows)


def _row(record: Record) -> list[str]:
    apart = anomaly.distance(record) if record.experiment == TABLE else None
    model = f"{record.model}, {record.data}" if record.data else record.model
    return [
        model,
        record.schedule,
        str(len(record.seeds)),
        record.device,
        record.date,
        "-" if apart is None else f"{apart[0]:+.1f}",
    ]


def _missing() -> str:
    """What the image models of full size would take, from the speed of those that were run."""
    known = [r for r in of(FACES) if r.seconds and r.iterations]
    if not known:
        return ""
    one = max(known, key=lambda r: (r.iterations or 0) / (r.seconds or 1))
    speed = (one.iterations or 0) / (one.seconds or 1)
    # four times the pixels, four times the arithmetic of a convolution
    hours = span(4 * FACES_ITERATIONS / speed)
    return (
        f"CelebA at 64 x 64 for {FACES_ITERATIONS:,} iterations needs a card: at the speed of the "
        f"32 x 32 model here ({speed:.0f} iterations a second on {one.device}, beside {one.beside} "
        f"other trainings), with four times the arithmetic, {hours} each model. What has no record "
        "is on the pages of the shorter schedules."
    )
