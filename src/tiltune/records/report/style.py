"""The page's style: two palettes, one type scale; no request leaves the page."""

STYLE = """
:root{
  --paper:#fbfaf7;--card:#fff;--ink:#1d1c1a;--soft:#5d5a54;--line:#e4e0d8;
  --s1:#1f5fa8;--s2:#b4530a;--s3:#237a57;--s4:#7a4fa3;--s5:#9a7b0a;--s6:#77736b;--s7:#b03a6a;--s8:#0d7f8c;
  --rule:#237a57;--good:#1c6b4a;--good-bg:#e3f2ea;--bad:#a5281b;--bad-bg:#fbe7e3;
  --open:#7a5a00;--open-bg:#fbf1d2;--high:31 95 168;--low:214 88 20;--heat:.46;--band:.15
}
@media (prefers-color-scheme:dark){:root{
  --paper:#15161a;--card:#1c1e23;--ink:#eceae4;--soft:#a7a49c;--line:#32343b;
  --s1:#7db4f0;--s2:#f0a060;--s3:#6cc59c;--s4:#bd9be6;--s5:#dcc05a;--s6:#a09c93;--s7:#f08fb5;--s8:#5fc8d4;
  --rule:#6cc59c;--good:#85d6b0;--good-bg:#183328;--bad:#ff9b8c;--bad-bg:#3d1d19;
  --open:#ecd07a;--open-bg:#37301a;--high:74 138 220;--low:224 106 40;--heat:.6;--band:.2
}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  font-variant-numeric:tabular-nums}
main{max-width:72rem;margin:0 auto;padding:clamp(1.25rem,4vw,3.5rem) clamp(1rem,4vw,2.5rem) 5rem}
section{margin-top:3.25rem}
h1,h2,h3,p,ul,ol,dl,dd,figure{margin:0;padding:0}
h1{font-weight:400}
h2{font-size:1.25rem;font-weight:650;letter-spacing:-.01em;margin-bottom:.75rem}
h3{font-size:.95rem;font-weight:600}
ul,ol{list-style:none}
.note{color:var(--soft);font-size:.875rem;margin:-.4rem 0 1rem;max-width:44rem}
.charts+.note{margin:1rem 0 0}

.eyebrow{color:var(--soft);font-size:.875rem}
h1 small{display:block;font-size:1rem;font-weight:600;margin-top:1.5rem}
.rate{display:flex;align-items:baseline;flex-wrap:wrap;gap:.18em;line-height:1.1;
  font-size:clamp(2.9rem,11vw,5.25rem);font-weight:650;letter-spacing:-.035em}
.rate .from,.rate .arrow{color:var(--soft);font-weight:400}
.rate .arrow{font-size:.62em}
.below{color:var(--soft);margin-top:.25rem}
.verdict{display:inline-flex;flex-wrap:wrap;gap:.1rem .6rem;margin-top:1rem;padding:.35rem .8rem;
  border-radius:.5rem;font-size:.9375rem}
.verdict.pass{color:var(--good);background:var(--good-bg)}
.verdict.fail{color:var(--bad);background:var(--bad-bg)}
.verdict.undecided{color:var(--open);background:var(--open-bg)}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,11.5rem),1fr));
  gap:1rem 2rem;margin-top:2rem;padding-top:1.25rem;border-top:1px solid var(--line)}
dt{color:var(--soft);font-size:.8125rem}
dd{overflow-wrap:anywhere}

:is(#warnings,.alarms) li{padding:.7rem 1rem;margin-top:.5rem;border-left:3px solid var(--open);
  background:var(--open-bg);border-radius:0 .4rem .4rem 0;font-size:.9375rem;overflow-wrap:anywhere}
#warnings .round{display:block;color:var(--open);font-size:.8125rem;font-weight:600}

.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem}
#calibration .charts{display:flex;flex-wrap:wrap;align-items:flex-start}
#calibration .chart{flex:1 1 18rem;max-width:26rem}
#calibration .charts>div{flex:2 1 22rem;min-width:0}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.chart{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
  padding:.9rem 1rem .6rem;display:flex;flex-direction:column}
.chart figcaption{display:flex;flex-wrap:wrap;align-items:baseline;gap:0 .6rem}
.unit{color:var(--soft);font-size:.8125rem}
.chart svg{display:block;width:100%;height:auto;margin-top:auto}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.8125rem;color:var(--soft);
  margin:.25rem 0 .6rem}
.legend b{color:var(--ink);font-weight:600}
.legend i{display:inline-block;width:.65rem;height:.65rem;border-radius:50%;margin-right:.35rem;
  background:currentColor}
.legend i.rule{height:0;width:1rem;border-radius:0;background:none;vertical-align:middle;
  border-top:2px dashed var(--rule)}
.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}
.s4{color:var(--s4)}.s5{color:var(--s5)}.s6{color:var(--s6)}
.s7{color:var(--s7)}.s8{color:var(--s8)}
svg .grid{stroke:var(--line)}
svg .tick{fill:var(--soft);font-size:11.5px}
svg .tick.y{text-anchor:end}
svg .tick.x{text-anchor:middle}
svg .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
svg .dot,svg .bar{fill:currentColor}
svg .dot{stroke:var(--card);stroke-width:1.5}
svg .bar{stroke:var(--card)}
svg .band{fill:currentColor;opacity:var(--band)}
svg .whisker{stroke:currentColor;stroke-width:5;opacity:.35;stroke-linecap:round}
svg .rule{fill:none;stroke:var(--rule);stroke-width:1.5;stroke-dasharray:5 4}

.scroll{overflow:auto;max-height:36rem;border:1px solid var(--line);border-radius:.6rem;
  background:var(--card);margin-bottom:1rem}
table{border-collapse:collapse;width:100%;font-size:.875rem}
caption{text-align:left;padding:.7rem .9rem .2rem;font-weight:600;font-size:.9375rem}
th,td{padding:.4rem .9rem;text-align:right;vertical-align:bottom;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:500;font-size:.8125rem;line-height:1.3;
  min-width:6rem}
td{white-space:nowrap}
th:first-child{text-align:left;position:sticky;left:0;background:var(--card);min-width:0}
tbody th{font-weight:500}
:is(th,td).prose{text-align:left;white-space:normal;min-width:15rem}
td.prose{vertical-align:top}
th.prose:first-child{position:static;font-weight:400}
#rounds tbody th{white-space:nowrap}
.reason{color:var(--soft);font-size:.8125rem}
#configuration td,#manifest td{text-align:left;white-space:normal;overflow-wrap:anywhere}
#configuration tbody th,#manifest tbody th{color:var(--soft);width:11rem}
.tables{columns:2 22rem;column-gap:1rem}
.tables .scroll{break-inside:avoid}

.scale{font-size:.8125rem;color:var(--soft);margin-bottom:1.25rem}
.scale ol{display:flex;margin-top:.35rem;max-width:34rem;border-radius:.4rem}
.scale li{flex:1;text-align:center}
.scale li span{display:block;height:.9rem}
.scale li b{display:block;color:var(--ink);font-weight:500}
.scale small{font-size:.75rem}
.pair{border-top:1px solid var(--line);padding:1rem 0 1.1rem}
.sides{display:grid;gap:.9rem 2rem;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.role{display:inline-block;color:var(--soft);font-size:.75rem;font-weight:600;
  letter-spacing:.02em;margin-right:.5rem}
.prompt{margin-bottom:.6rem}
p.facts{color:var(--soft);font-size:.8125rem;margin-bottom:.2rem}
.mark.yes{color:var(--good)}.mark.no{color:var(--bad)}.mark{font-weight:600}
.text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}
em{color:var(--soft)}
.tokens{line-height:1.85}
.tokens span{border-radius:.2em;padding:.12em 0;box-decoration-break:clone}
.tokens .high{background:rgb(var(--high)/calc(var(--h)*var(--heat)))}
.tokens .low{background:rgb(var(--low)/calc(var(--h)*var(--heat)))}
.tokens .none{border-bottom:1px dotted var(--soft)}
summary{cursor:pointer;color:var(--soft);font-size:.9375rem;padding:.3rem 0}
summary:hover{color:var(--ink)}
:focus-visible{outline:2px solid var(--s1);outline-offset:2px}
details.violating summary{font-size:.875rem;color:var(--bad)}
details.block{border-top:1px solid var(--line);padding:.35rem 0}

section[id^=table] tbody th{white-space:nowrap}
h1.title{font-size:clamp(1.9rem,6vw,3rem);font-weight:650;letter-spacing:-.025em;line-height:1.15;
  overflow-wrap:anywhere}
.pictures{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.legend i.square{border-radius:0}
.legend i.diamond{border-radius:0;transform:rotate(45deg) scale(.85)}
svg .error{stroke:currentColor;stroke-width:1.5;opacity:.45}
svg .dot.small{opacity:.75;stroke-width:1}
button.sort{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
  text-align:inherit}
button.sort:hover{color:var(--ink)}
button.sort::after{content:"\\2009\\2195";opacity:.4}
th[aria-sort] button.sort{color:var(--ink)}
th[aria-sort=ascending] button.sort::after{content:"\\2009\\2191";opacity:1}
th[aria-sort=descending] button.sort::after{content:"\\2009\\2193";opacity:1}
form.find{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
  padding:.9rem 1rem;margin-bottom:1rem;font-size:.875rem;position:sticky;top:0;z-index:1}
form.find .row{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:end}
form.find label{color:var(--soft)}
form.find .row label{display:flex;flex-direction:column;gap:.2rem}
form.find .grow{flex:1 1 14rem}
form.find :is(input[type=search],select,button){font:inherit;color:var(--ink);
  background:var(--paper);border:1px solid var(--line);border-radius:.4rem;padding:.35rem .6rem;
  width:100%}
form.find .row button[type=button]{width:auto;cursor:pointer}
form.find fieldset{border:0;margin:.7rem 0 .3rem;padding:0;display:flex;flex-wrap:wrap;
  gap:.2rem 1rem}
form.find legend{float:left;color:var(--soft);margin-right:1rem}
form.find output{color:var(--soft)}
[hidden]{display:none!important}
#alarms li{padding:.7rem 1rem;margin-top:.5rem;border-left:3px solid var(--open);
  background:var(--open-bg);border-radius:0 .4rem .4rem 0;font-size:.9375rem}
#alarms .round{display:block;color:var(--open);font-size:.8125rem;font-weight:600}
.automaton{overflow:auto;background:var(--card);border:1px solid var(--line);border-radius:.6rem;
  margin:1rem 0 .6rem}
.automaton svg{display:block;margin:0 auto}
.automaton+.note{margin:0 0 1rem}
svg .state circle{fill:var(--card);stroke:var(--ink);stroke-width:1.6}
svg .state .inner{stroke-width:1.2}
svg .state text{text-anchor:middle;font-size:12px;fill:var(--ink)}
svg .state.dead circle{fill:var(--line);stroke:var(--soft)}
svg .state.dead text{fill:var(--soft)}
svg .edge{fill:none;stroke:var(--soft);stroke-width:1.3}
svg .tip{fill:var(--soft)}
svg .label{text-anchor:middle;font-size:11.5px;fill:var(--ink);paint-order:stroke;
  stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
@media (max-width:40rem){form.find{position:static}}
@media print{.scroll{max-height:none}section{break-inside:avoid-page}}
"""
