"""Figures: one layout, two files."""

from matplotlib.layout_engine import ConstrainedLayoutEngine

from mmace_sim.plots import add_legend, new_figure, save_figure


def test_both_files_have_one_layout(tmp_path, monkeypatch):
    execute, places = ConstrainedLayoutEngine.execute, []

    def counted(engine, figure):
        execute(engine, figure)
        places.append(axes.get_position().bounds)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", counted)
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1e6], label="line")
    axes.set(xlabel="time (ps)", ylabel="energy (eV)", title="title")
    add_legend(axes)
    start = axes.get_position().bounds
    png, svg = save_figure(figure, tmp_path / "figure")
    assert png.stat().st_size > 1000
    assert "energy (eV)" in svg.read_text()
    assert len(places) == 1
    assert axes.get_position().bounds == places[0] != start  # room for the labels
    assert isinstance(
        figure.get_layout_engine(), ConstrainedLayoutEngine
    )  # what is drawn later is laid out again
