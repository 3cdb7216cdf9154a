"""The style sheet of a replay's page: light, dark, small screens, paper."""

CSS = """
:root{color-scheme:light dark;--paper:#fff;--wash:#f5f6f8;--ink:#1b1f24;--soft:#5b636d;
--rule:#d9dde2;--live:#0068a8;--never:#b84a00;--every:#00735a;--good:#00694f;--bad:#a63a00;
--goodwash:#e3f3ee;--badwash:#fbeadf;--absent:#eceef1}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--wash:#1d2126;--ink:#e8eaed;
--soft:#a3abb5;--rule:#363c44;--live:#5cb8f0;--never:#f0a35c;--every:#45c9a5;--good:#5fd0b0;
--bad:#f5ab72;--goodwash:#17332c;--badwash:#3a2618;--absent:#20242a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:40px 24px 56px}
h1{font-size:30px;line-height:1.2;margin:0 0 14px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:20px;line-height:1.3;margin:0 0 8px}
p{margin:0 0 10px;max-width:78ch}
section{margin-top:44px}
.over{text-transform:uppercase;letter-spacing:.09em;font-size:12px;color:var(--soft);margin:0 0 4px}
.lead{font-size:20px;line-height:1.45;max-width:62ch}
.about{color:var(--soft)}
.about b{color:var(--ink)}
.lead{margin-top:18px}
.soft{color:var(--soft)}
.small{display:block;font-size:12px;line-height:1.4;color:var(--soft)}
b .small{font-weight:400}
.num,.big{font-variant-numeric:tabular-nums}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(225px,1fr));gap:12px;margin-top:26px}
.tile{background:var(--wash);border-radius:8px;padding:14px 16px}
.tile p{margin:0 0 4px}
.tile .big{font-size:26px;font-weight:600;line-height:1.25}
.verdict,.chip{display:inline-block;border-radius:99px;font-size:12px;font-weight:600;
line-height:1.3;padding:2px 9px;vertical-align:middle}
.verdict,.chip{background:var(--absent);color:var(--ink)}
.verdict.better,.chip.good{background:var(--goodwash);color:var(--good)}
.verdict.worse,.chip.bad{background:var(--badwash);color:var(--bad)}
.chip.go{border:1.5px solid var(--live);background:none;color:var(--live)}
ul{margin:0;padding-left:20px}
li{margin-bottom:4px;max-width:82ch}
.terms{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:12px 32px;margin:0;
font-size:14px}
.terms dt{font-weight:600}
.terms dd{margin:0;color:var(--soft)}
.key{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:4px 20px;font-size:14px;
margin:0 0 4px}
.key li{margin:0}
.icon{vertical-align:-2px}
.scroll{overflow-x:auto}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--live);outline-offset:2px}
.plot{display:block;width:100%;height:auto;min-width:760px}
.plot[width]{width:auto;min-width:0}
svg text{font-size:12px;fill:var(--soft)}
svg .panel,svg .name,svg .flag,svg .figure{font-weight:600}
svg .panel,svg .flag,svg .figure{fill:var(--ink)}
svg text.live{fill:var(--live)}svg text.never{fill:var(--never)}svg text.every{fill:var(--every)}
svg text.refused{fill:var(--bad)}
.grid{stroke:var(--rule);stroke-width:1}
.zero{stroke:var(--ink);stroke-width:1.5}
.absent{fill:var(--absent)}
.mean{fill:var(--wash)}
.way{fill:none;stroke-width:1.8}
.way.never{stroke-dasharray:6 4}.way.every{stroke-dasharray:2 3}
.interval{stroke-width:2}
.live{fill:var(--live)}.never{fill:var(--never)}.every{fill:var(--every)}.afterwards{fill:var(--soft)}
.way.live,.interval.live{stroke:var(--live)}
.way.never,.interval.never{stroke:var(--never)}
.way.every,.interval.every{stroke:var(--every)}
.interval.afterwards{stroke:var(--soft)}
.way{fill:none}
.hollow{fill:var(--paper);stroke:var(--ink);stroke-width:1.6}
.hollow.live{stroke:var(--live)}
.promise{stroke:var(--soft);stroke-width:1}
.went{stroke:var(--soft);stroke-width:1.2}
.went.refused{stroke:var(--bad);stroke-dasharray:4 4}
.cross{stroke:var(--bad);stroke-width:2}
.bar.plain{fill:var(--paper);stroke:var(--live);stroke-width:1.5}
.bar.weighted{fill:var(--live)}
.sign{fill:var(--ink)}
.sign.hollow{fill:var(--paper);stroke:var(--ink)}
.fault{fill:var(--bad)}
svg .share{font-size:11px}svg .inside{fill:var(--paper)}
svg .bang{font-size:10px;font-weight:700;fill:var(--paper)}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:9px 10px 9px 0;border-bottom:1px solid var(--rule)}
thead th{font-size:12px;line-height:1.3;color:var(--soft);vertical-align:bottom;
border-bottom:2px solid var(--rule)}
tbody th{font-weight:400}
td,th{overflow-wrap:anywhere}
.timeline{table-layout:fixed}
.timeline th:nth-child(1){width:10%}.timeline th:nth-child(2){width:9.5%}
.timeline th:nth-child(3),.timeline th:nth-child(4),.timeline th:nth-child(5){width:11%}
.timeline th:nth-child(6){width:18%}.timeline th:nth-child(7){width:11.5%}
.timeline th:nth-child(8){width:12.5%}.timeline th:nth-child(9){width:5.5%}
th .small,td .small{white-space:normal}
.small.better{color:var(--good)}.small.worse{color:var(--bad)}.small.alarm{color:var(--bad)}
.feature{display:block;padding-left:12px;text-indent:-12px}
details{font-size:12px}
summary{cursor:pointer;color:var(--live)}
details p{margin:4px 0;color:var(--soft)}
.training+.training{margin-top:8px}
.costs{max-width:640px;margin-bottom:12px}
.costs td.num,.costs th+th{text-align:right}
footer{margin-top:52px;border-top:2px solid var(--rule);padding-top:22px;font-size:14px}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--wash);
border-radius:4px;padding:1px 5px;overflow-wrap:anywhere}
.digests{margin:14px 0}
.digests div{margin-bottom:6px}
.digests dt{color:var(--soft)}
.digests dd{margin:0;font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
overflow-wrap:anywhere}
@media screen and (max-width:820px){
main{padding:24px 16px 40px}
h1{font-size:25px}.lead{font-size:18px}
.timeline,.timeline tbody,.timeline tr,.timeline th,.timeline td{display:block}
.timeline th:nth-child(n){width:auto}.timeline thead{display:none}
.scroll::before{content:"Scroll sideways to see all of it.";color:var(--soft);font-size:12px}
.timeline tr{border:1px solid var(--rule);border-radius:8px;padding:6px 12px;margin-bottom:12px}
.timeline td{display:grid;grid-template-columns:9em 1fr;gap:8px;padding:6px 0}
.timeline td::before{content:attr(data-label);color:var(--soft);font-size:12px}
.timeline td.empty{display:none}
.timeline tr>:last-child{border-bottom:0}
}
@media print{
@page{size:A4;margin:14mm}
@page across{size:A4 landscape;margin:12mm}
.across{page:across}
:root{color-scheme:light}
body{font-size:11px}table,.terms,.key,footer{font-size:10px}
.small,details,thead th,.chip{font-size:8.5px}
.lead{font-size:15px}h1{font-size:22px}h2{font-size:15px}.tile .big{font-size:18px}
.terms{grid-template-columns:repeat(3,1fr)}.tiles{grid-template-columns:repeat(4,1fr)}
th,td{padding:5px 6px 5px 0}p{max-width:none}main{max-width:none;padding:0}
.plot,.plot[width]{min-width:0;width:100%}
.scroll{overflow:visible}
section{margin-top:22px}
.tile,.scroll,tr,.terms div{break-inside:avoid}
h2{break-after:avoid}
summary{display:none}
details.more{display:none}
.chip{border-radius:4px;padding:1px 5px}
details::details-content{content-visibility:visible;display:block}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
