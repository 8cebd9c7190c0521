"""The page that `mmace_sim.report` fills. It loads nothing and runs nothing: its policy forbids both."""

STYLE: str = """
:root { --ink: #1b1f24; --soft: #59616b; --rule: #d5d9de; --tint: #f5f6f8; --link: #14406e; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.5rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; padding-bottom: .25rem; border-bottom: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
.apart { margin-top: 1.25rem; }
.counts > span { margin-right: 1rem; }
p { margin: .4rem 0; max-width: 48rem; }
a { color: var(--link); }
.lead { color: var(--soft); }
.scroll { overflow-x: auto; margin: .5rem 0; background:
  linear-gradient(to left, #fff 40%, rgba(255, 255, 255, 0)) right / 2.5rem 100% no-repeat local,
  linear-gradient(to left, rgba(27, 31, 36, .18), rgba(27, 31, 36, 0)) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; line-height: 1.3;
  white-space: pre-line; }
tbody th { font-weight: 500; }
.num { text-align: right; } td.num { white-space: nowrap; }
.results td { white-space: nowrap; }
.results tbody th { position: sticky; left: 0; background: #fff; min-width: 8.5rem; max-width: 15rem;
  overflow-wrap: break-word; }
.results tbody th, .results thead th:first-child { padding-left: 0; }
.status { white-space: nowrap; font-weight: 600; margin: 0; }
.good { color: #14653a; } .bad { color: #a01f17; } .other { color: #7a4b00; }
.message { border-left: 3px solid #a01f17; padding-left: .75rem; overflow-wrap: anywhere; }
.note { border-left: 3px solid #c98a1b; padding-left: .75rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); gap: 1rem; }
.card { border: 1px solid var(--rule); border-radius: .4rem; padding: 1rem; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.head { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin-bottom: .5rem; }
.body { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: flex-start; }
.body figure { flex: 1 1 14rem; max-width: 19rem; }
.facts { flex: 1 1 15rem; min-width: 0; }
figure { margin: 0; } figure svg, figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .75rem; }
.figures figure { flex: 1 1 22rem; max-width: 34rem; min-width: 0; }
.figures figure.broad { flex-basis: 100%; max-width: 62rem; }
dl { margin: 0; font-size: .875rem; columns: 15rem; column-gap: 2rem; }
dl div { display: grid; grid-template-columns: minmax(5rem, 8.5rem) minmax(0, 1fr); gap: 1rem; break-inside: avoid;
  padding: .08rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
section[aria-labelledby="run"] dl { columns: auto; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link); }
pre { background: var(--tint); padding: .75rem; overflow-x: auto; font-size: .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; margin: 2.5rem auto 2rem; }
@media (max-width: 40rem) {
  header, main, footer { padding: 0 .85rem; }
  .results tbody th { min-width: 7.5rem; max-width: 8.5rem; }
  th, td { padding: .3rem .5rem; }
  .card { padding: .75rem; } .body figure { max-width: none; }
}
@media print { .card { break-inside: avoid; } .scroll { overflow: visible; } }
"""

MACROS: str = """\
{%- macro status(text) -%}
<span class="status {{ 'good' if text in good else 'bad' if text in bad else 'other' }}">
{{- '✓' if text in good else '✗' if text in bad else '!' }} {{ text.replace('_', ' ') }}</span>
{%- endmacro -%}
{%- macro head(t) -%}
<thead><tr>
{% for text in t.header %}<th scope="col"{{ num(t, loop.index0) }}>{{ text }}</th>{% endfor %}
</tr></thead>
{%- endmacro -%}
{%- macro num(t, k) -%}{% if t.numeric[k] %} class="num"{% endif %}{%- endmacro -%}
{%- macro table(t) -%}
<div class="scroll" role="region" aria-label="{{ t.caption }}" tabindex="0">
<table><caption>{{ t.caption }}</caption>
{%- if t.header %}{{ head(t) }}{% endif %}
<tbody>{% for row in t.rows %}<tr>
{% for text in row %}<td{{ num(t, loop.index0) }}>{{ text }}</td>{% endfor %}
</tr>{% endfor %}</tbody></table></div>
{%- endmacro -%}
{%- macro figures(items) -%}
<div class="figures">{% for f in items %}<figure{% if f.broad %} class="broad"{% endif %}>
<img src="{{ f.data }}" alt="{{ f.alt }}"><figcaption>{{ f.caption }}</figcaption></figure>{% endfor %}</div>
{%- endmacro -%}
{%- macro facts(pairs) -%}
<dl>{% for term, text in pairs %}<div><dt>{{ term }}</dt><dd>{{ text }}</dd></div>{% endfor %}</dl>
{%- endmacro -%}
{%- macro remarks(kind, groups) -%}
{% for text, names in groups.items() %}
<p class="{{ kind }}"><strong>{{ names|join(', ') }}</strong>: {{ text }}</p>
{% endfor %}
{%- endmacro -%}
"""
"""Pieces of pages: a status, tables, figures, pairs of a term and a text, remarks."""

HEAD: str = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p class="lead">{{ lead }}</p>
"""
"""How pages begin: the title and the line below it."""

LEFT_OUT: str = """\
{% if problems or warnings %}
<section aria-labelledby="messages"><h2 id="messages">Left out</h2>
{% for text in problems %}<p class="message">{{ text }}</p>{% endfor %}
{% if warnings %}<details><summary>Warnings and errors in the log: {{ warnings|length }}</summary>
<pre>{{ warnings|join('\\n') }}</pre></details>{% endif %}
</section>
{% endif %}
"""
"""What could not be used, and the warnings of the log."""

RUN: str = """\
<section aria-labelledby="run"><h2 id="run">The run</h2>
<div class="body">
<div class="facts"><h3>Model and times</h3>{{ facts(run) }}</div>
<div class="facts"><h3>Versions</h3>{{ facts(versions) }}</div>
</div>
<h3 class="apart">Settings</h3>
{{ table(settings) }}
</section>
</main>
<footer>Written by mmace-sim {{ own_version }}. Every number is in summary.json beside this file.</footer>
</body>
</html>
"""
"""How pages end: the model, versions and settings."""

TEMPLATE: str = (
    MACROS
    + HEAD
    + """\
<p class="counts">{% for text, count in counts %}<span>{{ status(text) }} {{ count }}</span> {% endfor %}</p>
</header>
<main>
<section aria-labelledby="results"><h2 id="results">Results</h2>
<div class="scroll results" role="region" aria-labelledby="results" tabindex="0"><table>
{{ head(results) }}
<tbody>{% for row in results.rows %}<tr>{% for text in row %}
{% if loop.first and text in anchors %}<th scope="row"><a href="#{{ anchors[text] }}">{{ text }}</a></th>
{% elif loop.first %}<th scope="row">{{ text }}</th>
{% elif loop.index0 == status_column %}<td>{{ status(text) }}</td>
{% else %}<td{{ num(results, loop.index0) }}>{{ text }}</td>
{% endif %}{% endfor %}</tr>{% endfor %}</tbody></table></div>
</section>
{% if failures or notes or warnings %}
<section aria-labelledby="messages"><h2 id="messages">Messages and notes</h2>
{{ remarks('message', failures) }}
{{ remarks('note', notes) }}
{% if warnings %}<details><summary>Warnings and errors in the log: {{ warnings|length }}</summary>
<pre>{{ warnings|join('\n') }}</pre></details>{% endif %}
</section>
{% endif %}
{% if common %}
<section aria-labelledby="figures"><h2 id="figures">Figures</h2>{{ figures(common) }}</section>
{% endif %}
<section aria-labelledby="structures"><h2 id="structures">Structures</h2>
<div class="cards">{% for s in structures %}
<article class="card{{ ' wide' if s.figures or s.pictures|length > 1 }}" id="{{ s.anchor }}">
<div class="head"><h3>{{ s.name }}</h3>{{ status(s.status) }}</div>
<div class="body">
{% for p in s.pictures %}<figure>{{ p.svg }}
{%- if p.caption %}<figcaption>{{ p.caption }}</figcaption>{% endif %}</figure>{% endfor %}
<div class="facts">{{ facts(s.facts) }}
{% if s.message %}<p class="{{ 'note' if s.status in good else 'message' }}">{{ s.message }}</p>{% endif %}
{% if s.tables %}<details><summary>More numbers</summary>
{% for t in s.tables %}{{ table(t) }}{% endfor %}</details>{% endif %}
</div></div>
{% if s.figures %}{{ figures(s.figures) }}{% endif %}
</article>{% endfor %}</div>
{% for text in omitted %}<p class="note">{{ text }}</p>{% endfor %}
</section>
"""
    + RUN
)
"""The page of a run that has one entry for each structure."""
