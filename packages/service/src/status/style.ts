/** The look of the status page: one column on a phone, room for tables on a wide screen, light and dark. */
export const STYLE = `
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--line:#e2e5ea;--text:#1b1f27;--soft:#5d6675;--accent:#2f5fd0;
--good:#187a41;--good-bg:#e2f4e8;--warn:#8a5a00;--warn-bg:#fff1d2;--bad:#b3261e;--bad-bg:#fde7e5;--mute:#e9ecf1;
--shadow:0 1px 2px rgb(20 25 40/6%),0 2px 10px rgb(20 25 40/4%)}
@media(prefers-color-scheme:dark){:root{--bg:#0f1217;--card:#181c23;--line:#2a303a;--text:#e6e9ee;--soft:#98a2b3;
--accent:#86aaff;--good:#6fd19a;--good-bg:#12301f;--warn:#f0c063;--warn-bg:#352808;--bad:#ff9a92;--bad-bg:#3b1614;
--mute:#242a33;--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header>div{max-width:1240px;margin:0 auto;padding:0 20px}
header{background:var(--card);border-bottom:1px solid var(--line)}
header>div{display:flex;flex-wrap:wrap;gap:6px 16px;align-items:center;padding-top:16px;padding-bottom:16px}
h1{font-size:20px;margin:0;letter-spacing:-.01em}
h1 small{font-weight:400;color:var(--soft);font-size:15px;margin-left:.5em}
h2{font-size:16px;margin:28px 0 10px}
h3{font-size:16px;margin:0;overflow-wrap:anywhere}
.facts{margin-left:auto;color:var(--soft);font-size:13px}
.pill{display:inline-block;border-radius:99px;padding:1px 10px;font-size:13px;font-weight:600;white-space:nowrap;background:var(--mute);color:var(--soft)}
.good{background:var(--good-bg);color:var(--good)}.warn{background:var(--warn-bg);color:var(--warn)}.bad{background:var(--bad-bg);color:var(--bad)}
.note{border-radius:10px;padding:10px 14px;margin:16px 0 0;overflow-wrap:anywhere}
.note b{display:block}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;box-shadow:var(--shadow);padding:16px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin-top:20px}
.figure{padding:12px 16px}
.figure span{display:block;color:var(--soft);font-size:13px}
.figure strong{font-size:22px;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.figure em{font-style:normal;color:var(--soft);font-size:13px;margin-left:4px}
.queues{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:14px}
.top{display:flex;flex-wrap:wrap;gap:4px 8px;align-items:center;margin-bottom:4px}
.top h3{margin-right:auto}
.sub{color:var(--soft);font-size:13px;margin:0 0 12px;overflow-wrap:anywhere}
.bar{display:grid;grid-template-columns:92px 1fr auto;gap:10px;align-items:center;font-size:13px;margin:7px 0}
.bar svg{width:100%;height:8px;display:block;border-radius:99px;background:var(--mute)}
.bar rect{fill:var(--accent)}.bar.full rect{fill:var(--warn)}
.bar span:last-child{color:var(--soft);font-variant-numeric:tabular-nums;min-width:52px;text-align:right}
dl{display:flex;flex-wrap:wrap;gap:4px 18px;margin:12px 0 0;padding-top:10px;border-top:1px solid var(--line);font-size:13px}
dl div{display:flex;gap:5px}dt{color:var(--soft)}dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
.steps{padding:0;overflow:hidden}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:left;font-weight:600;font-size:12px;color:var(--soft);padding:9px 12px;border-bottom:1px solid var(--line);white-space:nowrap}
td{padding:8px 12px;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:break-word}
td.text{width:34%;overflow-wrap:anywhere}td time{white-space:nowrap}
tr:last-child td{border-bottom:0}
td.num,th.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td small{color:var(--soft);display:block;font-size:12.5px}
td .pill{font-size:12px;padding:0 8px}
.empty{color:var(--soft);padding:18px;text-align:center;margin:0}
form{display:flex;flex-wrap:wrap;gap:8px;margin-bottom:10px}
select,input,button{font:inherit;font-size:14px;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:6px 10px;min-height:36px}
input{flex:1 1 200px;min-width:0}
button{cursor:pointer;font-weight:600}
:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.log{list-style:none;margin:0;padding:6px 0;font:12.5px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;max-height:70vh;overflow:auto}
.log li{display:grid;grid-template-columns:auto 1fr;gap:0 12px;padding:2px 14px;border-left:3px solid var(--good);overflow-wrap:anywhere}
.log li+li{margin-top:1px}
.log time{color:var(--soft);white-space:nowrap}
.log .Warning{border-color:#d99a1c;background:color-mix(in srgb,var(--warn-bg) 55%,transparent)}
.log .Serious{border-color:#d43a30;background:color-mix(in srgb,var(--bad-bg) 60%,transparent)}
.log b{font-weight:600}.log .Info b{color:var(--good)}.log .Warning b{color:var(--warn)}.log .Serious b{color:var(--bad)}
.live{font-size:13px;color:var(--soft);display:inline-flex;gap:6px;align-items:center}
.live i{width:8px;height:8px;border-radius:50%;background:var(--soft)}.live.on i{background:#2fa562}
footer{color:var(--soft);font-size:13px;padding:22px 0 34px}
a{color:var(--accent)}
@media(max-width:720px){
main,header>div{padding-left:14px;padding-right:14px}.facts{margin-left:0;width:100%}
.figures{grid-template-columns:repeat(2,1fr);gap:10px}.figure{padding:10px 12px}.figure strong{font-size:19px}
table,tbody,tr,td{display:block}thead{display:none}
tr{padding:10px 14px;border-bottom:1px solid var(--line)}tr:last-child{border:0}
td,td.num,td.text{border:0;padding:1px 0;text-align:left;width:auto;overflow-wrap:anywhere}
td:first-child{float:right}td small{display:inline;margin-left:.5em}
td[data-name]{display:inline-block;margin-right:12px;font-size:13px}
td[data-name]::before{content:attr(data-name) " ";color:var(--soft);font-size:12.5px}
.log li{grid-template-columns:1fr;padding:4px 10px}
}
@media(prefers-reduced-motion:no-preference){.bar rect{transition:width .3s}}
`;
