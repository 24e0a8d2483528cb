'use strict';
(async()=>{
const $=i=>document.getElementById(i),root=document.documentElement;
const fail=e=>{const p=$('err');p.hidden=false;p.textContent='This page could not show its data: '+(e&&e.message||e)};
addEventListener('error',e=>fail(e.error||e.message));addEventListener('unhandledrejection',e=>fail(e.reason));
const el=(t,c,...k)=>{const e=document.createElement(t);if(c)e.className=c;for(const x of k)e.append(x);return e};
// Names come from processes: what could steer a terminal, a line or the direction of text is shown, not obeyed.
const clean=s=>String(s).replace(/[\x00-\x1f\x7f]/g,c=>c==='\x7f'?'\u2421':String.fromCharCode(0x2400+c.charCodeAt(0))).replace(/[\u0080-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,c=>'⟨'+c.charCodeAt(0).toString(16).toUpperCase()+'⟩');
const num=n=>String(n).replace(/\B(?=(\d{3})+(?!\d))/g,'\u202f');
const dur=n=>{const a=Math.abs(n);return a<1e3?n.toFixed(0)+' ns':a<1e6?(n/1e3).toPrecision(4)+' µs':a<1e9?(n/1e6).toPrecision(4)+' ms':(n/1e9).toPrecision(5)+' s'};
// ---- blocks: base64 in an inert element, gzip, columns as byte planes
async function gunzip(u){
  if(!self.DecompressionStream)throw Error('this browser has no DecompressionStream (Firefox 113, Chrome 80, Safari 16.4 or later have it)');
  return new Uint8Array(await new Response(new Blob([u]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer())}
async function raw(n){const e=$('b-'+n);if(!e)return null;const s=e.textContent;e.remove();
  let u;if(Uint8Array.fromBase64)u=Uint8Array.fromBase64(s);else{const b=atob(s);u=new Uint8Array(b.length);for(let i=0;i<b.length;i++)u[i]=b.charCodeAt(i)}return gunzip(u)}
async function block(n){const u=await raw(n);if(!u)return null;const hl=u[0]|u[1]<<8|u[2]<<16|u[3]<<24,h=JSON.parse(new TextDecoder().decode(u.subarray(4,4+hl)));
  const col=(name,big)=>{const d=h.cols[name];if(!d)return new Uint8Array(0);const [o,k,w]=d,b=4+hl+o;if(w===1)return u.subarray(b,b+k);
    if(w===8){const r=big?new BigUint64Array(k):new Float64Array(k);for(let i=0;i<k;i++){if(big){let v=0n;for(let j=7;j>=0;j--)v=v<<8n|BigInt(u[b+j*k+i]);r[i]=v}else{let v=0;for(let j=7;j>=0;j--)v=v*256+u[b+j*k+i];r[i]=v}}return r}
    const r=w===2?new Uint16Array(k):new Uint32Array(k);for(let j=0;j<w;j++){const p=b+j*k,s=8*j;for(let i=0;i<k;i++)r[i]|=u[p+i]<<s}return r};
  return Object.assign(h,{col})}
const T0=performance.now();
const M=JSON.parse(new TextDecoder().decode(await raw('meta')));
const base=BigInt(M.t0),span=M.span,N=M.ncpu,ths=M.threads.map(t=>({tid:t[0],comm:clean(t[1]),pid:t[2],run:t[3],rec:t[4]})),evs=M.events.map(e=>({name:clean(e[0]),n:e[1]}));
const clock=t=>{const v=base+BigInt(Math.round(t));return v/1000000000n+'.'+String(v%1000000000n).padStart(9,'0')};
const tn=i=>i<0||!ths[i]?'not known':i===0?'idle':ths[i].comm+' '+ths[i].tid;
const [cb,tb,eb,db,fb]=await Promise.all(['cpu','thread','event','dist','flame'].map(block));
// ---- levels: the file has counts and shares of the finest one; sums upward are exact
function pyramid(a,n,nb,ls,avg){const m={[nb]:a};let p=a,pl=nb;for(const L of ls.slice(1)){const f=pl/L,o=avg?new Uint8Array(n*L):new Uint32Array(n*L);for(let i=0,k=0;i<o.length;i++){let s=0,any=0;for(let j=0;j<f;j++){const v=p[k++];s+=v;any|=v}o[i]=avg?(any?Math.max(1,Math.round(s/f)):0):s}m[L]=p=o;pl=L}return m}
const LV=cb.levels,cpuEv=pyramid(cb.col('events'),N,cb.nb,LV,0),cpuBusy=pyramid(cb.col('busy'),N,cb.nb,LV,1),cpuTop={},cpuShare={};for(const L of LV){cpuTop[L]=cb.col('top'+L);cpuShare[L]=cb.col('share'+L)}
const tls=[tb.nb];while(tls.at(-1)>1024)tls.push(tls.at(-1)/4);
const thr=tb.col('thread'),K=tb.n,thEv=pyramid(tb.col('events'),K,tb.nb,tls,0),thRun=pyramid(tb.col('run'),K,tb.nb,tls,1),thRq=pyramid(tb.col('rq'),K,tb.nb,tls,1);
const laneOf=new Map();thr.forEach((t,i)=>laneOf.set(t,i));
// ---- whole records: tiles, opened when they come into view
const has=new Map(M.tiles.map(t=>[t[0],t[1]])),tiles=new Map(),tw=cb.nb/M.nt*cb.bw;
async function open(k){if(!has.has(k)||tiles.has(k))return;tiles.set(k,null);const b=await block('tile'+k);
  const n=b.col('n'),init=b.col('init'),dt=b.col('dt'),ev=b.col('ev'),hd=b.col('th'),nx=b.col('next'),stt=b.col('state'),R=dt.length,t=new Float64Array(R),th=new Uint32Array(R),next=new Int32Array(R).fill(-1),state=new Uint8Array(R),at=new Uint32Array(N+1);
  const rs=[],re=[],rt=[],rc=[],rst=[],ra=new Uint32Array(N+1);let q=0,p=0;const s0=k*tw,s1=Math.min((k+1)*tw,span);
  for(let c=0;c<N;c++){let cur=init[c],x=s0,from=s0;at[c]=q;ra[c]=rs.length;const e=q+n[c];
    for(;q<e;q++){x+=dt[q];t[q]=x;th[q]=cur+((hd[q]>>>1)^-(hd[q]&1));if(M.has.sched&&p<nx.length&&evs[ev[q]].name==='sched:sched_switch'){next[q]=nx[p];state[q]=stt[p++];rs.push(from);re.push(x);rt.push(cur);rc.push(c);rst.push(state[q]);cur=next[q];from=x}}
    if(M.has.sched){rs.push(from);re.push(s1);rt.push(cur);rc.push(c);rst.push(2)}}
  at[N]=q;ra[N]=rs.length;
  const ord=new Uint32Array(rs.length).map((_,i)=>i).sort((a,b)=>rt[a]-rt[b]||rs[a]-rs[b]),ti=new Map();ord.forEach((r,i)=>{const v=rt[r];if(!ti.has(v))ti.set(v,[i,i+1]);else ti.get(v)[1]=i+1});
  let byTh=null;const o={k,b,t,th,ev,next,state,at,rs,re,rt,rc,rst,ra,ord,ti,R,byThread(){if(!byTh){byTh=new Map();const ix=new Uint32Array(R).map((_,i)=>i).sort((a,b)=>t[a]-t[b]);for(const i of ix){const v=th[i];(byTh.get(v)||byTh.set(v,[]).get(v)).push(i)}}return byTh},
    cols:new Map(b.events.map(([e,cs])=>[e,cs])),pos:null,
    fields(i){if(!this.pos){this.pos=new Uint32Array(R);const c=new Map();for(let j=0;j<R;j++){const e=ev[j],m=c.get(e)||0;this.pos[j]=m;c.set(e,m+1)}}
      const e=ev[i],out=[];if(next[i]>=0)out.push(['prev',tn(th[i])],['prev_state',state[i]?'not runnable':'runnable (preempted)'],['next',tn(next[i])]);
      for(const [f,kind] of this.cols.get(e)||[]){const a=b.col(e+'.'+f,kind==='u'||(kind==='i'&&b.cols[e+'.'+f][2]===8)),v=a[this.pos[i]];out.push([clean(f),kind==='s'?clean(b.strings[v]):kind==='u'?'0x'+v.toString(16):typeof v==='bigint'?String((v>>1n)^-(v&1n)):String(v%2?-(v+1)/2:v/2)])}return out}};
  tiles.set(k,o);tileMs.push(performance.now());kick()}
const tileMs=[];
// ---- colours: by the program's name, so that its threads look alike; height and names say the same without colour
const PL=['#8fb8e6','#efb27c','#8ccba6','#e29da1','#b9ade2','#d3c06c','#80c7ce','#e0aed0','#aec08c','#c7ac99','#a3b1c4','#c9c9c9'],PD=['#3f6ea8','#a8692f','#37805d','#984a50','#6a5aa4','#82701f','#2d7880','#915580','#5f733a','#775c46','#546379','#5a5f66'];
const hash=s=>{let h=2166136261;for(let i=0;i<s.length;i++)h=Math.imul(h^s.charCodeAt(i),16777619);return (h^h>>>15)>>>0};
const prog=t=>t.comm.replace(/[/:.\d ].*$/,'')||t.comm,rank=new Map();ths.forEach((t,i)=>{if(i)rank.set(prog(t),(rank.get(prog(t))||0)+t.run+t.rec)});
const order=new Map([...rank].sort((x,y)=>y[1]-x[1]).map((x,i)=>[x[0],i<11?i:11])),key=ths.map(t=>order.get(prog(t))??11);
const legend=[...order].slice(0,12);let C={},pal=[],palDim=[],evLut=[],hot=null;
const rgb=s=>{const m=/^#(..)(..)(..)$/.exec(s)||/^#(.)(.)(.)$/.exec(s);const v=i=>parseInt(m[i].length===1?m[i]+m[i]:m[i],16);return [v(1),v(2),v(3)]};
const u32=([r,g,b])=>(255<<24|b<<16|g<<8|r)>>>0,mix=(a,b,f)=>a.map((x,i)=>Math.round(x+(b[i]-x)*f));
function theme(){const cs=getComputedStyle(root);for(const v of ['bg','fg','dim','line','panel','lane','lane2','acc','loss','loss2','ev','wait','sel','hit','mono','sans'])C[v]=cs.getPropertyValue('--'+v).trim();
  const P=root.dataset.theme==='dark'?PD:PL,bg=rgb(C.lane);C.pal=P;P.forEach((c,i)=>root.style.setProperty('--k'+i,c));pal=P.map(x=>u32(rgb(x)));palDim=P.map(x=>u32(mix(rgb(x),bg,.78)));evLut=Array.from({length:17},(_,i)=>u32(mix(bg,rgb(C.ev),i?.16+.84*i/16:0)));evHit=Array.from({length:17},(_,i)=>u32(mix(bg,rgb(C.hit),i?.3+.7*i/16:0)))}
let evHit=[];
root.dataset.theme=matchMedia('(prefers-color-scheme: dark)').matches?'dark':'light';
// ---- the view
const cv=$('c'),ov=$('o'),mp=$('map'),box=$('view'),X=cv.getContext('2d',{alpha:false}),O=ov.getContext('2d'),Y=mp.getContext('2d',{alpha:false,willReadFrequently:true});
const LAB=150,RUL=26;let a=0,b=span,sy=0,W=0,H=0,D=1,hover=null,sel=null,range=null,drag=null,focus=1,img=null,buf=null,q='',hitTh=null,hitEv=null,hitStr=null;
const lanes=[];let y=0;const lane=(type,i,h,label,sub)=>{lanes.push({type,i,h,y,label,sub});y+=h};
const CH=N<=4?44:N<=16?30:22;
lane('head',0,20,M.has.sched?'CPUs: what ran (height: busy); below, density of records':'CPUs: density of records (no scheduling events in this trace)');for(let c=0;c<N;c++)lane('cpu',c,CH,'CPU '+c,num(M.cpus[c]));
if(K){lane('head',1,20,M.has.sched?`Busiest ${K} of ${ths.length-1} threads: ran (solid), waited for a CPU (striped)`:`Busiest ${K} of ${ths.length-1} threads by records`);for(let k=0;k<K;k++)lane('thread',k,22,ths[thr[k]].comm,String(ths[thr[k]].tid))}
const total=y;
const px=t=>(t-a)/(b-a)*(W-LAB)+LAB,tt=x=>a+(x-LAB)/(W-LAB)*(b-a);
function clamp(){const w=Math.min(Math.max(b-a,50),span*1.02);let m=(a+b)/2;if(b-a!==w){a=m-w/2;b=m+w/2}const lo=-span*.01,hi=span*1.01;if(a<lo){b+=lo-a;a=lo}if(b>hi){a-=b-hi;b=hi}sy=Math.max(0,Math.min(sy,Math.max(0,total-(H-RUL))))}
let need=false,frames=[];function kick(){if(!need){need=true;requestAnimationFrame(()=>{need=false;const s=performance.now();draw();frames.push(performance.now()-s);if(frames.length>2000)frames.shift()})}}
let hneed=false;function kickHover(){if(!hneed){hneed=true;requestAnimationFrame(()=>{hneed=false;overlay()})}}
function size(){if(!box.clientWidth)return;D=Math.min(devicePixelRatio||1,2);W=box.clientWidth;H=box.clientHeight;for(const k of [cv,ov]){k.width=W*D;k.height=H*D;k.style.width=W+'px';k.style.height=H+'px'}mp.width=mp.clientWidth*D;mp.height=mp.clientHeight*D;img=X.createImageData(Math.max(1,Math.round((W-LAB)*D)),Math.max(1,Math.round((H-RUL)*D)));buf=new Uint32Array(img.data.buffer);mapImg=null;kick()}
const lossBy=new Map();M.lost.forEach((l,i)=>{const k=l[2];(lossBy.get(k)||lossBy.set(k,[]).get(k)).push(l)});
let colT,hgt,evc,sumd,wgt;
function laneCols(L,w,npp){ // per device pixel: colour (thread+1), height 0..255, records, whether summed
  colT.fill(0);hgt.fill(0);evc.fill(0);wgt.fill(0);sumd.fill(0);
  const cpu=L.type==='cpu',nb=cpu?cb.nb:tb.nb,bw0=span0(nb),ls=cpu?LV:tls;let lv=ls[0];for(const l of ls)if(span0(l)<=npp)lv=l;const bw=span0(lv),o=L.i*lv;
  const EV=(cpu?cpuEv:thEv)[lv],BU=(cpu?cpuBusy:thRun)[lv],TP=cpu?cpuTop[lv]:null,SH=cpu?cpuShare[lv]:null,RQ=cpu?null:thRq[lv],exact=npp<bw0;
  for(let x=0;x<w;x++){const t0=a+x*npp,t1=t0+npp;if(t1<=0||t0>=span)continue;
    let i0=Math.max(0,Math.floor(t0/bw)),i1=Math.min(lv-1,Math.ceil(t1/bw)-1);if(exact){if(i1>i0)i1=i0;const k=Math.floor(i0*bw/tw);if(tiles.get(k))continue;sumd[x]=1}
    else if(x&&i0*bw<t0&&i1>i0)i0++; // a bucket belongs to the pixel in which it begins
    let e=0,s=0,best=0,bt=0,rq=0;for(let i=i0;i<=i1;i++){e+=EV[o+i];const u=BU[o+i];s+=u;if(TP){const v=u*SH[o+i];if(v>best){best=v;bt=TP[o+i]}}else rq+=RQ[o+i]}
    const m=i1-i0+1;evc[x]=exact?e/Math.max(1,bw/npp)*(e?1:0):e;hgt[x]=s?Math.max(20,s/m):0;colT[x]=s?(cpu?bt:thr[L.i])+1:0;if(rq)wgt[x]=Math.max(30,rq/m)}
  if(exact){const k0=Math.floor(Math.max(0,a)/tw),k1=Math.floor(Math.min(span-1,b)/tw);for(let k=k0;k<=k1;k++){const t=tiles.get(k);if(!t)continue;
      const put=(s,e,th,st)=>{let x0=(s-a)/npp,x1=(e-a)/npp;if(x1<0||x0>w||th===0)return;const f=Math.max(0,Math.floor(x0)),g=Math.min(w-1,Math.floor(x1));for(let x=f;x<=g;x++){const c=Math.min(x+1,x1)-Math.max(x,x0);if(c<=0)continue;hgt[x]+=c*255;if(c>wgt0[x]){wgt0[x]=c;colT[x]=th+1}}if(x1-x0>4&&g<w){const z=Math.floor(x1-.001);if(z>=0&&z<w)colT[z]=-colT[z]}};
      wgt0.fill(0);
      if(cpu){const lo=t.ra[L.i],hi=t.ra[L.i+1];let l=lo,r=hi;while(l<r){const m=l+r>>1;t.re[m]<a?l=m+1:r=m}for(let i=l;i<hi&&t.rs[i]<b;i++)put(t.rs[i],t.re[i],t.rt[i]);
        let p=lower(t.t,t.at[L.i],t.at[L.i+1],a);for(;p<t.at[L.i+1]&&t.t[p]<b;p++){const x=Math.floor((t.t[p]-a)/npp);if(x>=0&&x<w)evc[x]+=hitEv?(hitEv.has(t.ev[p])?1:.0001):1}}
      else{const id=thr[L.i],g=t.ti.get(id);if(g)for(let i=g[0];i<g[1];i++){const r=t.ord[i];put(t.rs[r],t.re[r],id);if(i+1<g[1]&&t.rst[r]===0){const s=t.ord[i+1];let f=Math.max(0,Math.floor((t.re[r]-a)/npp)),h=Math.min(w-1,Math.floor((t.rs[s]-a)/npp));for(let x=f;x<=h;x++)wgt[x]=200}}
        for(const i of t.byThread().get(id)||[]){const x=Math.floor((t.t[i]-a)/npp);if(x>=0&&x<w)evc[x]++}}}
    for(let x=0;x<w;x++)if(hgt[x]>255)hgt[x]=255;else if(hgt[x]>0&&hgt[x]<20)hgt[x]=20}
  return exact}
let wgt0;
const span0=l=>cb.bw*cb.nb/l;
function lower(t,l,r,v){while(l<r){const m=l+r>>1;t[m]<v?l=m+1:r=m}return l}
function draw(){clamp();const w=img.width,h=img.height,npp=(b-a)/w;if(!colT||colT.length!==w){colT=new Int32Array(w);hgt=new Float32Array(w);evc=new Float32Array(w);sumd=new Uint8Array(w);wgt=new Float32Array(w);wgt0=new Float32Array(w)}
  const bg1=u32(rgb(C.lane)),bg2=u32(rgb(C.lane2)),bgp=u32(rgb(C.bg)),loss=u32(rgb(C.loss)),loss2=u32(rgb(C.loss2)),wait=u32(rgb(C.wait)),line=u32(rgb(C.line));buf.fill(bgp);
  const exactZ=npp<cb.bw;if(exactZ){const k0=Math.floor(Math.max(0,a)/tw),k1=Math.floor(Math.min(span-1,b)/tw);for(let k=k0;k<=k1&&k<k0+64;k++)if(has.has(k)&&!tiles.has(k))open(k)}
  const vis=lanes.filter(L=>L.type!=='head'&&L.y+L.h>sy&&L.y<sy+H-RUL),labels=[];
  const dens=new Map();let mx=1;
  for(const L of vis){laneCols(L,w,npp);
    const top=Math.round((L.y-sy)*D),bot=Math.round((L.y+L.h-sy)*D)-1,evh=Math.round(Math.max(4,L.h*.2)*D),lo=M.has.sched?bot-evh:top+2,full=lo-top-2*D,bg=(L.i&1)?bg2:bg1;
    if(!M.has.sched&&L.type==='cpu'){}
    let m=0;for(let x=0;x<w;x++)if(evc[x]>m)m=evc[x];const lm=1/Math.log2(1+Math.max(m,1)),lut=hitEv?evHit:evLut;
    for(let r=Math.max(0,top);r<Math.min(h,bot);r++){const row=r*w,fromB=(lo-r)/full*255,strip=r>=lo,odd=(r>>1)&1;
      for(let x=0;x<w;x++){let v=bg;if(strip){if(M.has.sched){const e=evc[x];if(e>0)v=lut[e<.01?2:Math.min(16,3+Math.round(13*Math.log2(1+e)*lm))]}else{const e=evc[x];if(e>0){const f=Math.log2(1+e)*lm;if((bot-r)/(bot-lo)<=Math.max(f,.12))v=lut[Math.min(16,5+Math.round(11*f))]}}}
        else{const c=colT[x];if(c!==0&&r>top&&hgt[x]>=fromB&&!(sumd[x]&&odd)){const th=(c<0?-c:c)-1;v=c<0?bg:(hitTh&&!hitTh.has(th))?palDim[key[th]]:pal[key[th]]}else if(wgt[x]>0&&hgt[x]<fromB&&wgt[x]+hgt[x]>=fromB&&((x+r)%5)<2)v=wait}
        buf[row+x]=v}}
    if(top>=0&&top<h){const row=top*w;for(let x=0;x<w;x++)buf[row+x]=line}
    if(L.type==='cpu')for(const l of lossBy.get(L.i)||[]){let x0=Math.round((l[0]-a)/npp),x1=Math.round((l[1]-a)/npp);if(x1<0||x0>w)continue;if(x1-x0<3*D){x1=x0+Math.round(3*D)}
      for(let r=Math.max(0,top+1);r<Math.min(h,bot);r++)for(let x=Math.max(0,x0);x<Math.min(w,x1);x++)buf[r*w+x]=((x+r)>>1)%5<2||x===x0||x===x1-1?loss:loss2;
      if(x1-x0>70*D)labels.push([Math.max(0,x0)/D+LAB+6,L.y-sy+RUL+L.h/2,'▼ '+num(l[3])+(l[4]==='overrun'?' sub-buffers overwritten':' lost'),C.loss,Math.min(w,x1)/D-Math.max(0,x0)/D-12,1])}
    // names in boxes that have room for them
    if(exactZ||1){let x=0;while(x<w){const c=colT[x];if(c<=0||hgt[x]<200){x++;continue}let e=x;while(e<w&&colT[e]===c&&hgt[e]>=200)e++;if((e-x)/D>34){const th=c-1;labels.push([x/D+LAB+4,L.y-sy+RUL+(lo-top)/D/2+1,L.type==='cpu'?ths[th].comm+' '+ths[th].tid:cpuAt(th,a+(x+e)/2*npp),C.fg,(e-x)/D-8,0])}x=Math.max(e,x+1)}}
  }
  X.setTransform(1,0,0,1,0,0);X.fillStyle=C.bg;X.fillRect(0,0,cv.width,cv.height);X.putImageData(img,Math.round(LAB*D),Math.round(RUL*D));X.setTransform(D,0,0,D,0,0);
  X.textBaseline='middle';X.font='11px '+C.sans;
  for(const [x,yy,s,c,mw,bold] of labels){if(yy<RUL+4||yy>H)continue;X.save();X.beginPath();X.rect(x-3,yy-8,mw+4,16);X.clip();if(bold){X.font='bold 11px '+C.sans;const tw_=Math.min(X.measureText(s).width+8,mw+4);X.fillStyle=C.bg;X.fillRect(x-4,yy-8,tw_,16)}X.fillStyle=c;X.fillText(s,x,yy+.5);X.restore()}
  // lane names
  X.save();X.beginPath();X.rect(0,RUL,W,H-RUL);X.clip();X.fillStyle=C.bg;X.fillRect(0,RUL,LAB,H-RUL);
  for(const L of lanes){const yy=L.y-sy+RUL;if(yy+L.h<RUL||yy>H)continue;
    if(L.type==='head'){X.fillStyle=C.panel;X.fillRect(0,yy,W,L.h);X.fillStyle=C.dim;X.font='600 11px '+C.sans;X.fillText(L.label,8,yy+L.h/2);continue}
    X.fillStyle=C.line;X.fillRect(0,yy,LAB,1);const hit=hitTh&&L.type==='thread'&&hitTh.has(thr[L.i]);X.fillStyle=hit?C.hit:C.fg;X.font=(hit||lanes[focus]===L?'600 ':'')+'12px '+C.sans;
    if(lanes[focus]===L){X.fillStyle=C.acc;X.fillRect(0,yy+1,3,L.h-1);X.fillStyle=hit?C.hit:C.fg}
    X.textAlign='right';X.font='10px '+C.sans;const sw=X.measureText(L.sub).width;X.fillStyle=C.dim;X.fillText(L.sub,LAB-6,yy+L.h/2);X.textAlign='left';
    X.save();X.beginPath();X.rect(8,yy,LAB-20-sw,L.h);X.clip();X.font='12px '+C.sans;X.fillStyle=hit?C.hit:C.fg;X.fillText((hit?'● ':'')+L.label,8,yy+L.h/2);X.restore()}
  X.restore();
  // ruler, with the strip that says where single records are
  X.fillStyle=C.bg;X.fillRect(0,0,W,RUL);X.fillStyle=C.line;X.fillRect(0,RUL-1,W,1);X.fillRect(LAB-1,0,1,H);
  const want=(b-a)/((W-LAB)/110),p10=Math.pow(10,Math.floor(Math.log10(want))),step=[1,2,5,10].map(f=>f*p10).find(s=>s>=want)||p10*10;
  X.font='11px '+C.sans;X.fillStyle=C.dim;for(let t=Math.ceil(a/step)*step;t<=b;t+=step){if(t<0||t>span)continue;const x=px(t);X.fillRect(x,12,1,9);X.fillText(tick(t,step),x+3,9)}
  X.textAlign='right';X.fillText('from start',LAB-6,9);X.textAlign='left';
  for(let k=Math.max(0,Math.floor(a/tw)),k1=Math.min(M.nt-1,Math.floor(b/tw));k<=k1;k++){const x0=Math.max(LAB,px(k*tw)),x1=Math.min(W,px(Math.min((k+1)*tw,span)));if(has.has(k)){X.fillStyle=C.acc;X.fillRect(x0,RUL-5,Math.max(1,x1-x0-(x1-x0>6?.5:0)),4)}}
  for(const l of M.lost){const x=px((l[0]+l[1])/2);if(x<LAB||x>W)continue;X.fillStyle=C.loss;X.beginPath();X.moveTo(x-4,13);X.lineTo(x+4,13);X.lineTo(x,20);X.fill()}
  const summed=exactZ&&[...Array(Math.min(4096,Math.floor(Math.min(span-1,b)/tw)-Math.floor(Math.max(0,a)/tw)+1)).keys()].some(i=>!tiles.get(Math.floor(Math.max(0,a)/tw)+i));
  $('res').textContent=dur(b-a)+' wide · '+(exactZ?(summed?'■ blue: single records; striped: summed every '+dur(cb.bw):'■ single records'):'summed, '+dur(npp*D)+' a pixel');
  drawMap();overlay();save()}
const cpuAt=(th,t)=>{const z=tiles.get(Math.floor(t/tw));if(z){const g=z.ti.get(th);if(g)for(let i=g[0];i<g[1];i++){const r=z.ord[i];if(z.rs[r]<=t&&z.re[r]>=t)return 'CPU '+z.rc[r]}}return ''};
const tick=(t,s)=>s>=1e9?(t/1e9).toFixed(0)+' s':s>=1e6?(t/1e9).toFixed(Math.min(3,Math.ceil(9-Math.log10(s))))+' s':s>=1e3?(t/1e6).toFixed(Math.max(0,Math.ceil(6-Math.log10(s))))+' ms':s>=1?(t/1e3).toFixed(Math.max(0,Math.ceil(3-Math.log10(s))))+' µs':t+' ns';
let mapImg=null;
function drawMap(){const w=mp.width,h=mp.height;if(!w||!h)return;if(!mapImg||mapImg.key!==root.dataset.theme+q+w){Y.setTransform(1,0,0,1,0,0);Y.fillStyle=C.bg;Y.fillRect(0,0,w,h);Y.setTransform(D,0,0,D,0,0);const lw=w/D-LAB,L=LV.at(-1),ev=new Float64Array(L),bu=new Float64Array(L);
    for(let c=0;c<N;c++)for(let i=0;i<L;i++){ev[i]+=cpuEv[L][c*L+i];bu[i]+=cpuBusy[L][c*L+i]}
    if(hitEv&&hitEv.size){ev.fill(0);const ec=eb.col('count'),ee=eb.col('event');ee.forEach((e,j)=>{if(hitEv.has(e))for(let i=0;i<L;i++)ev[i]+=ec[j*512+Math.floor(i*512/L)]})}
    let m=1;for(const v of ev)if(v>m)m=v;
    if(M.has.sched){Y.fillStyle=C.lane2;Y.fillRect(LAB,2,lw,22);Y.fillStyle=C.pal[0];for(let x=0;x<lw;x++){const v=bu[Math.floor(x/lw*L)]/N/255;Y.fillRect(LAB+x,24-22*v,1,22*v)}}
    Y.fillStyle=hitEv?C.hit:C.dim;const by=M.has.sched?26:4;for(let x=0;x<lw;x++){const v=ev[Math.floor(x/lw*L)]/m;if(v)Y.fillRect(LAB+x,46-(46-by)*Math.max(v,.04),1,(46-by)*Math.max(v,.04))}
    for(let k=0;k<M.nt;k++)if(has.has(k)){Y.fillStyle=C.acc;Y.fillRect(LAB+k*tw/span*lw,50,Math.max(.7,tw/span*lw),4)}
    for(const l of M.lost){const x=LAB+l[0]/span*lw;Y.fillStyle=C.loss;Y.fillRect(x,0,Math.max(1.5,(l[1]-l[0])/span*lw),Math.max(4,47/N));Y.beginPath();Y.moveTo(x-5,0);Y.lineTo(x+5,0);Y.lineTo(x,8);Y.fill()}
    Y.font='11px '+C.sans;Y.textBaseline='middle';Y.fillStyle=C.dim;if(M.has.sched)Y.fillText('CPUs busy (mean)',8,12);Y.fillText(hitEv?'matching records':'records',8,36);Y.fillStyle=C.acc;Y.font='10px '+C.sans;Y.fillText('■ single records kept',8,52);
    mapImg=Y.getImageData(0,0,w,h);mapImg.key=root.dataset.theme+q+w}
  Y.putImageData(mapImg,0,0);Y.setTransform(D,0,0,D,0,0);const lw=w/D-LAB,x0=LAB+Math.max(0,a)/span*lw,x1=LAB+Math.min(span,b)/span*lw;Y.fillStyle=C.fg;Y.globalAlpha=.16;Y.fillRect(LAB,0,x0-LAB,60);Y.fillRect(x1,0,W-x1,60);Y.globalAlpha=1;Y.fillRect(x0-1,0,2,60);Y.fillRect(x1-1,0,2,60)}
// ---- what is under the pointer
function at(x,yy){const L=lanes.find(l=>yy-RUL+sy>=l.y&&yy-RUL+sy<l.y+l.h);if(!L||L.type==='head'||yy<RUL)return null;const t=Math.max(0,Math.min(span-1,tt(Math.max(LAB,x)))),k=Math.floor(t/tw),z=tiles.get(k),npp=(b-a)/(W-LAB);
  if(L.type==='cpu')for(const l of lossBy.get(L.i)||[])if(t>=l[0]-npp*3&&t<=Math.max(l[1],l[0]+npp*3)&&px(l[0])-3<=x&&x<=Math.max(px(l[1]),px(l[0])+4)+1)return {L,t,loss:l};
  if(z&&npp*D<cb.bw){let i=-1;if(L.type==='cpu'){const lo=z.at[L.i],hi=z.at[L.i+1];if(hi>lo){i=lower(z.t,lo,hi,t);if(i===hi||(i>lo&&t-z.t[i-1]<z.t[i]-t))i--}}
    else{const v=z.byThread().get(thr[L.i])||[];let l=0,r=v.length;while(l<r){const m=l+r>>1;z.t[v[m]]<t?l=m+1:r=m}if(v.length){if(l===v.length||(l&&t-z.t[v[l-1]]<z.t[v[l]]-t))l--;i=v[l]}}
    let run=-1;if(M.has.sched){if(L.type==='cpu'){for(let l=z.ra[L.i],r=z.ra[L.i+1];l<r;){const m=l+r>>1;if(z.re[m]<t)l=m+1;else if(z.rs[m]>t)r=m;else{run=m;break}}}else{const g=z.ti.get(thr[L.i]);if(g)for(let j=g[0];j<g[1];j++){const r=z.ord[j];if(z.rs[r]<=t&&z.re[r]>=t){run=r;break}}}}
    if(i>=0&&Math.abs(px(z.t[i])-x)>60)i=-1;return {L,t,z,i,run}}
  return {L,t}}
const row=(k,v)=>{const r=el('tr','',el('th','',k),el('td','',v));r.firstChild.scope='row';return r};
function describe(h){const d=$('detail');if(!h){d.replaceChildren(el('p','dim','Point at the timeline for what is there; click to keep it. Drag selects a time, F zooms to it. Ctrl and wheel, or W and S, zoom.'));return}
  const T=el('table'),L=h.L,who=L.type==='cpu'?'CPU '+L.i:tn(thr[L.i]);let title=who;
  if(h.loss){const l=h.loss;title='▼ '+num(l[3])+(l[4]==='overrun'?' sub-buffers overwritten':' records lost')+' on CPU '+l[2];T.append(row('After',clock(l[0])),row('Before',clock(l[1])),row('Length',dur(l[1]-l[0])),row('Meanwhile','what ran and happened is not known'))}
  else{if(h.z){if(h.i>=0){const z=h.z,i=h.i;title=evs[z.ev[i]].name;T.append(row('Time',clock(z.t[i])+'   (start + '+dur(z.t[i])+')'),row('CPU',String(cpuOf(z,i))),row('Thread',tn(z.th[i])+(ths[z.th[i]]&&ths[z.th[i]].pid>=0?'   process '+ths[z.th[i]].pid:'')));for(const [k,v] of z.fields(i))T.append(row(k,v))}
      if(h.run>=0){const z=h.z,r=h.run;T.append(row('Runs here',tn(z.rt[r])+' on CPU '+z.rc[r]+', '+dur(z.re[r]-z.rs[r])+(z.rs[r]<=h.z.k*tw?' or longer':'')))}if(h.i<0&&h.run<0)T.append(row('Records','none near'))}
    else{const cpu=L.type==='cpu',nb=cpu?cb.nb:tb.nb,npp=(b-a)/(W-LAB);let ls=cpu?LV:tls,lv=ls[0];for(const l of ls)if(span0(l)<=npp)lv=l;const w=span0(lv),i0=Math.floor(h.t/w),n=Math.max(1,Math.round(npp/w)),o=L.i*lv;let e=0,s=0,best=0,bt=0;for(let i=i0;i<Math.min(lv,i0+n);i++){e+=(cpu?cpuEv:thEv)[lv][o+i];const u=(cpu?cpuBusy:thRun)[lv][o+i];s+=u;if(cpu&&u*cpuShare[lv][o+i]>best){best=u*cpuShare[lv][o+i];bt=cpuTop[lv][o+i]}}
      T.append(row('Summed',dur(w*n)+' from start + '+dur(i0*w)),row('Records',num(e)));if(M.has.sched)T.append(row(cpu?'Busy':'Ran',(100*s/n/255).toFixed(0)+' %'));if(cpu&&best)T.append(row('Mostly',tn(bt)+'   ('+(100*best/(s*255)).toFixed(0)+' % of busy)'));
      const c=el('code','',`relayd report ${clean(M.facts.path)} --since @${clock(Math.max(0,i0*w-w*n*50))} --until @${clock(Math.min(span,i0*w+w*n*50))}`);T.append(row('One by one',has.has(Math.floor(h.t/tw))?'zoom in: they are in this page':c))}}
  const hd=el('h3','',title+(sel===h?'  ·  kept':''));d.replaceChildren(hd,T)}
const cpuOf=(z,i)=>{let l=0,r=N;while(r-l>1){const m=l+r>>1;z.at[m]<=i?l=m:r=m}while(l+1<=N&&z.at[l+1]<=i)l++;return l};
function nearby(h){const n=$('near');if(!h||!h.z||h.i<0){n.replaceChildren();return}const z=h.z,ids=h.L.type==='cpu'?null:z.byThread().get(thr[h.L.i]);let lo,hi,get,p;if(ids){p=ids.indexOf(h.i);lo=Math.max(0,p-30);hi=Math.min(ids.length,p+31);get=j=>ids[j]}else{const c=h.L.i;p=h.i;lo=Math.max(z.at[c],p-30);hi=Math.min(z.at[c+1],p+31);get=j=>j}
  const B=el('tbody');let cur=null;for(let j=lo;j<hi;j++){const i=get(j),r=el('tr',i===h.i?'sel':'',el('td','m',clock(z.t[i])),el('td','','+'+dur(z.t[i]-z.t[get(Math.max(lo,j-1))])),el('td','',tn(z.th[i])),el('td','',evs[z.ev[i]].name),el('td','m',z.fields(i).map(([k,v])=>k+'='+v).join(' ')));r.onclick=()=>pick({...h,i,t:z.t[i]},true);if(i===h.i)cur=r;B.append(r)}
  const hr=el('tr');for(const k of ['Time','After','Thread','Event','Fields'])hr.append(el('th','',k));n.replaceChildren(el('table','',el('thead','',hr),B));if(cur)n.scrollTop=cur.offsetTop-n.clientHeight/2}
function overlay(){O.setTransform(D,0,0,D,0,0);O.clearRect(0,0,W,H);
  if(range){const x0=Math.max(LAB,px(Math.min(...range))),x1=px(Math.max(...range));O.fillStyle=C.acc;O.globalAlpha=.15;O.fillRect(x0,0,x1-x0,H);O.globalAlpha=1;O.fillRect(x0,0,1,H);O.fillRect(x1,0,1,H);O.font='600 12px '+C.sans;const s=dur(Math.abs(range[1]-range[0])),m=O.measureText(s).width+10;O.fillRect((x0+x1-m)/2,RUL+2,m,18);O.fillStyle=C.bg;O.textBaseline='middle';O.fillText(s,(x0+x1-m)/2+5,RUL+11)}
  for(const [h,k] of [[sel,1],[hover,0]]){if(!h)continue;const t=h.z&&h.i>=0?h.z.t[h.i]:h.t,x=px(t),L=h.L,yy=L.y-sy+RUL;O.fillStyle=k?C.sel:C.dim;if(x>=LAB){O.globalAlpha=k?1:.6;O.fillRect(x-.5,RUL,1,H);O.globalAlpha=1}
    O.save();O.beginPath();O.rect(0,RUL,W,H);O.clip();O.strokeStyle=k?C.sel:C.dim;O.lineWidth=k?2:1;if(h.z&&h.run>=0){O.strokeRect(Math.max(LAB,px(h.z.rs[h.run])),yy+1.5,Math.max(3,Math.min(W,px(h.z.re[h.run]))-Math.max(LAB,px(h.z.rs[h.run]))),L.h-3)}
    if(h.z&&h.i>=0){O.fillStyle=k?C.sel:C.dim;O.beginPath();O.arc(x,yy+L.h-4,k?4:3,0,7);O.fill()}O.restore()}
  if(hover&&!drag){const s='start + '+dur(hover.t);O.font='11px '+C.sans;const m=O.measureText(s).width+8,x=Math.min(W-m,px(hover.t)+6);O.fillStyle=C.fg;O.fillRect(x,1,m,16);O.fillStyle=C.bg;O.textBaseline='middle';O.fillText(s,x+4,9)}}
function pick(h,center){sel=h;if(center&&h){const t=h.z&&h.i>=0?h.z.t[h.i]:h.t;if(t<a+(b-a)*.05||t>b-(b-a)*.05){const w=b-a;a=t-w/2;b=t+w/2}show(h.L)}if(h)focus=lanes.indexOf(h.L);describe(sel);nearby(sel);kick()}
function show(L){if(L.y<sy)sy=L.y;else if(L.y+L.h>sy+H-RUL)sy=L.y+L.h-(H-RUL)}
const zoom=(f,t)=>{const c=t??(a+b)/2;a=c-(c-a)*f;b=c+(b-c)*f;kick()},pan=f=>{const w=(b-a)*f;a+=w;b+=w;kick()},to=(x,z)=>{a=x;b=z;clamp();kick()};
async function gotoT(t,ln,width){const k=Math.floor(t/tw);const w=width||Math.min(b-a,Math.max(cb.bw*40,2000));to(t-w/2,t+w/2);await open(k);for(let i=0;i<100&&has.has(k)&&!tiles.get(k);i++)await new Promise(r=>setTimeout(r,5));const L=ln||lanes[focus]&&lanes[focus].type!=='head'&&lanes[focus]||lanes[1];show(L);clamp();const h=at(px(t),L.y-sy+RUL+L.h/2);pick(h||{L,t},false)}
// pointer
const pos=e=>{const r=box.getBoundingClientRect();return [e.clientX-r.left,e.clientY-r.top]};
box.addEventListener('pointerdown',e=>{const [x,yy]=pos(e);box.focus({preventScroll:true});box.setPointerCapture(e.pointerId);drag={x,yy,a,b,sy,pan:e.shiftKey||e.button===1,moved:false};if(e.button===1)e.preventDefault()});
box.addEventListener('pointermove',e=>{const [x,yy]=pos(e);if(drag){if(Math.abs(x-drag.x)+Math.abs(yy-drag.yy)>4)drag.moved=true;if(drag.moved){if(drag.pan){const d=(drag.x-x)/(W-LAB)*(b-a);a=drag.a+d;b=drag.b+d;sy=drag.sy+drag.yy-yy;kick()}else if(drag.x>LAB){range=[tt(drag.x),tt(Math.max(LAB,x))];kickHover()}}return}
  hover=at(x,yy);if(!sel)describe(hover);kickHover()});
box.addEventListener('pointerup',e=>{const [x,yy]=pos(e),d=drag;drag=null;if(!d)return;if(!d.moved){range=null;pick(at(x,yy))}else if(!d.pan&&d.yy<RUL&&range){to(Math.min(...range),Math.max(...range));range=null}});
box.addEventListener('dblclick',e=>{zoom(.25,tt(pos(e)[0]))});box.addEventListener('pointerleave',()=>{hover=null;kickHover();if(!sel)describe(null)});
box.addEventListener('wheel',e=>{const [x]=pos(e);if(e.ctrlKey||e.metaKey||e.altKey){e.preventDefault();zoom(Math.exp(Math.max(-1,Math.min(1,e.deltaY*.004))),tt(x))}else if(e.shiftKey||Math.abs(e.deltaX)>Math.abs(e.deltaY)){e.preventDefault();pan((e.deltaX||e.deltaY)/1200)}else{const o=sy;sy+=e.deltaY;clamp();if(sy!==o){e.preventDefault();kick()}}},{passive:false});
let mdrag=null;mp.addEventListener('pointerdown',e=>{mp.setPointerCapture(e.pointerId);mdrag=e.shiftKey?0:1;mv(e)});mp.addEventListener('pointermove',e=>{if(mdrag!==null)mv(e)});mp.addEventListener('pointerup',()=>mdrag=null);const mv=e=>{const r=mp.getBoundingClientRect(),t=(e.clientX-r.left-LAB)/(r.width-LAB)*span,w=b-a>=span?span*.1:b-a;to(t-w/2,t+w/2)};
// search
function search(s){q=s.trim().toLowerCase();hitTh=hitEv=hitStr=null;if(q){const t=new Set(),v=new Set();ths.forEach((x,i)=>{if(i&&(x.comm.toLowerCase().includes(q)||String(x.tid)===q||String(x.pid)===q))t.add(i)});evs.forEach((x,i)=>{if(x.name.toLowerCase().includes(q))v.add(i)});hitTh=t.size?t:null;hitEv=v.size?v:null;hitStr=q;
    $('hits').textContent=[t.size&&t.size+' threads',v.size&&v.size+' events ('+num([...v].reduce((p,i)=>p+evs[i].n,0))+' records)'].filter(Boolean).join(', ')||'Enter looks in the fields of records'}else $('hits').textContent='';kick()}
async function nextHit(dir){if(!hitTh&&!hitEv&&!hitStr)return;const from=sel?(sel.z&&sel.i>=0?sel.z.t[sel.i]:sel.t):dir>0?-1:span,ks=[...has.keys()].sort((x,y)=>(x-y)*dir);
  for(const k of ks){if(dir>0?(k+1)*tw<from:k*tw>from)continue;await open(k);for(let i=0;i<200&&!tiles.get(k);i++)await new Promise(r=>setTimeout(r,2));const z=tiles.get(k);let bi=-1,bt=dir>0?Infinity:-Infinity;for(let i=0;i<z.R;i++){const t=z.t[i];if(dir>0?(t<=from||t>=bt):(t>=from||t<=bt))continue;if((hitTh&&(hitTh.has(z.th[i])||hitTh.has(z.next[i])))||(hitEv&&hitEv.has(z.ev[i]))||(hitStr&&strHit(z,i))){bt=t;bi=i}}
    if(bi>=0){const L=lanes.find(l=>l.type==='cpu'&&l.i===cpuOf(z,bi));const w=Math.min(b-a,cb.bw*40);to(bt-w/2,bt+w/2);show(L);pick({L,t:bt,z,i:bi,run:-1});return}}$('hits').textContent='no more in the records that are kept one by one'}
const strHit=(z,i)=>{for(const [f,kind] of z.cols.get(z.ev[i])||[])if(kind==='s'){z.fields(i);if(z.b.strings[z.b.col(z.ev[i]+'.'+f)[z.pos[i]]].toLowerCase().includes(hitStr))return true}return false};
$('q').addEventListener('input',e=>search(e.target.value));$('q').addEventListener('keydown',e=>{if(e.key==='Enter'){e.preventDefault();nextHit(e.shiftKey?-1:1)}else if(e.key==='Escape'){e.target.value='';search('');box.focus()}});
// keys
const nextLoss=d=>{if(!M.lost.length)return;const c=(a+b)/2,ls=M.lost,m=l=>(l[0]+l[1])/2;const l=d>0?ls.find(l=>m(l)>c+1)||ls[0]:[...ls].reverse().find(l=>m(l)<c-1)||ls.at(-1);const w=Math.max((l[1]-l[0])*3,cb.bw*30);to(m(l)-w/2,m(l)+w/2);const L=lanes.find(x=>x.type==='cpu'&&x.i===l[2]);show(L);pick({L,t:m(l),loss:l})};
const nextTile=d=>{const c=(a+b)/2,ks=[...has.keys()].sort((x,y)=>x-y),k=d>0?ks.find(k=>k*tw>c)??ks[0]:[...ks].reverse().find(k=>(k+1)*tw<c)??ks.at(-1);if(k!==undefined)to(k*tw,(k+1)*tw)};
function step(d){const s=sel;if(!s||!s.z||s.i<0){gotoT((a+b)/2);return}const z=s.z,L=s.L;let i;if(L.type==='cpu'){i=s.i+d;if(i<z.at[L.i]||i>=z.at[L.i+1]){const k=z.k+d;if(has.has(k))gotoT(d>0?k*tw:(k+1)*tw-1,L,b-a);return}}else{const v=z.byThread().get(thr[L.i])||[],p=v.indexOf(s.i)+d;if(!v[p]&&v[p]!==0)return;i=v[p]}pick({...s,i,t:z.t[i],run:-1},true)}
function moveLane(d){let f=focus;do f+=d;while(lanes[f]&&lanes[f].type==='head');if(lanes[f]){focus=f;show(lanes[f]);clamp();const t=sel?(sel.z&&sel.i>=0?sel.z.t[sel.i]:sel.t):(a+b)/2,L=lanes[f];pick(at(px(t),L.y-sy+RUL+L.h/2)||{L,t})}}
const KEYS=[['W S + −','zoom in, out'],['A D','move left, right (Shift: a page)'],['← →','previous, next record of the lane'],['↑ ↓','lane above, below'],['drag','select a time; on the ruler: zoom to it'],['Shift drag','move'],['Ctrl wheel','zoom at the pointer'],['F','zoom to the selection, or what is kept'],['0','the whole trace'],['N P','next, previous loss'],['. ,','next, previous stretch of single records'],['/','search; Enter, Shift Enter: next, previous'],['G','go to a time'],['M','keep this view to come back with B'],['T','dark or light'],['Esc','let go of what is kept'],['?','this help']];
for(const [k,v] of KEYS)$('keys').append(el('div','',el('kbd','',k),v));
const fit=()=>{if(range){to(Math.min(...range),Math.max(...range));range=null}else if(sel){if(sel.loss)to(sel.loss[0]-(sel.loss[1]-sel.loss[0]),sel.loss[1]+(sel.loss[1]-sel.loss[0]));else if(sel.z&&sel.run>=0){const w=sel.z.re[sel.run]-sel.z.rs[sel.run];to(sel.z.rs[sel.run]-w*.2,sel.z.re[sel.run]+w*.2)}else gotoT(sel.t,sel.L,Math.max((b-a)/10,2000))}};
let mark=null;const flip=()=>{root.dataset.theme=root.dataset.theme==='dark'?'light':'dark';theme();mapImg=null;kick();drawDist();drawFlame()};
addEventListener('keydown',e=>{if(e.target.matches('input,select,textarea')||e.ctrlKey||e.metaKey||e.altKey)return;if(e.target.closest('#fbox')&&flameKey(e))return;const k=e.key.length===1?e.key.toLowerCase():e.key,p=e.shiftKey?.9:.2;let ok=1;
  if(k==='w'||k==='+'||k==='=')zoom(.6,sel?sel.t:undefined);else if(k==='s'||k==='-')zoom(1/.6,sel?sel.t:undefined);else if(k==='a')pan(-p);else if(k==='d')pan(p);else if(k==='0'||k==='Home')to(0,span);else if(k==='f')fit();else if(k==='n')nextLoss(1);else if(k==='p')nextLoss(-1);else if(k==='.'||k==='>')nextTile(1);else if(k===','||k==='<')nextTile(-1);else if(k==='/'){$('q').focus();$('q').select()}else if(k==='g')$('go').focus();else if(k==='t')flip();else if(k==='?')$('help').showModal();else if(k==='m')mark=[a,b];else if(k==='b'&&mark)to(...mark);else if(k==='Escape'){sel=null;range=null;describe(null);nearby(null);kick()}else if(document.activeElement===box&&k==='ArrowRight')step(1);else if(document.activeElement===box&&k==='ArrowLeft')step(-1);else if(document.activeElement===box&&k==='ArrowDown')moveLane(1);else if(document.activeElement===box&&k==='ArrowUp')moveLane(-1);else ok=0;if(ok)e.preventDefault()});
$('theme').onclick=flip;$('helpb').onclick=()=>$('help').showModal();$('bz').onclick=fit;$('b0').onclick=()=>to(0,span);$('bl').onclick=()=>nextLoss(1);$('bl').hidden=!M.lost.length;$('bd').onclick=()=>nextTile(1);
$('go').addEventListener('keydown',e=>{if(e.key!=='Enter')return;const m=/^\s*\+?\s*([\d.]+)\s*(ns|us|µs|ms|s)?\s*$/.exec(e.target.value);if(!m)return;let t=parseFloat(m[1])*({ns:1,us:1e3,'µs':1e3,ms:1e6}[m[2]]||1e9);if(t>span&&m[1].includes('.')){const [s,f='']=m[1].split('.');t=Number(BigInt(s)*1000000000n+BigInt(f.padEnd(9,'0').slice(0,9))-base)}if(t>=0&&t<=span){gotoT(t);box.focus()}});
for(const n of document.querySelectorAll('nav a'))n.onclick=e=>{e.preventDefault();$(n.getAttribute('href').slice(1)).scrollIntoView()};
// the view is in the address, to be sent along
let st=0;function save(){clearTimeout(st);st=setTimeout(()=>{try{history.replaceState(null,'','#t='+Math.round(a)+'-'+Math.round(b))}catch{}},300)}
{const m=/^#t=(-?\d+)-(\d+)$/.exec(location.hash);if(m){a=+m[1];b=+m[2]}}
// ---- durations: heat map (time × length), histogram at the same height, the longest
let kd=0;const hc=$('heat'),gc=$('hist');
function setup(c){const w=c.clientWidth,h=c.clientHeight;c.width=w*D;c.height=h*D;const x=c.getContext('2d',{alpha:false});x.setTransform(D,0,0,D,0,0);x.fillStyle=C.bg;x.fillRect(0,0,w,h);x.textBaseline='middle';x.font='11px '+C.sans;return [x,w,h]}
function drawDist(){const n=db.names.length;if(!n){$('dist').hidden=true;return}const h=db.col('h'+kd),S=db.stats[kd];let lo=255,hi=0,mx=1;const tot=new Float64Array(256);for(let t=0;t<128;t++)for(let r=0;r<256;r++){const v=h[t*256+r];if(v){tot[r]+=v;if(r<lo)lo=r;if(r>hi)hi=r;if(v>mx)mx=v}}lo=Math.max(0,lo-2);hi+=3;
  $('dstat').textContent=num(S.n)+' · total '+dur(S.sum)+' · mean '+dur(S.sum/S.n)+' · p50 '+dur(S.p50)+' · p90 '+dur(S.p90)+' · p99 '+dur(S.p99)+' · p99.9 '+dur(S.p999)+' · max '+dur(S.max);
  const [x,w,H1]=setup(hc),P=54,rh=(H1-22)/(hi-lo),yr=r=>H1-22-(r-lo)*rh,fg=rgb(C.ev),bg=rgb(C.bg),cw=(w-P)/128;
  for(let t=0;t<128;t++)for(let r=lo;r<hi;r++){const v=h[t*256+r];if(v){const f=.15+.85*Math.log2(1+v)/Math.log2(1+mx);x.fillStyle='rgb('+mix(bg,rgb(C.acc),f).join()+')';x.fillRect(P+t*cw,yr(r+1),Math.ceil(cw),Math.max(1,rh+.5))}}
  x.fillStyle=C.dim;const axis=(g,gw,left)=>{for(let d=0;d<11;d++)for(const f of [1]){const v=Math.pow(10,d)*f,r=Math.log2(v)*8;if(r<lo||r>hi)continue;g.fillStyle=C.line;g.fillRect(left,yr(r),gw,1);g.fillStyle=C.dim;g.textAlign='right';g.fillText(dur(v).replace(/\.0+ /,' '),left-4,yr(r));g.textAlign='left'}};axis(x,w-P,P);
  x.fillText('0',P,H1-9);x.textAlign='right';x.fillText(dur(span)+'  (time it ended; click to go there)',w-4,H1-9);x.textAlign='left';
  const [g,gw]=setup(gc);let m=1;for(const v of tot)if(v>m)m=v;axis(g,gw-P,P);g.fillStyle=C.acc;for(let r=lo;r<hi;r++)if(tot[r])g.fillRect(P,yr(r+1)+.5,Math.max(1,(gw-P-60)*tot[r]/m),Math.max(1,rh-.5));
  let last=1e9;const said=[];for(const [k,v] of [['p50',S.p50],['p90',S.p90],['p99',S.p99],['p99.9',S.p999],['max',S.max]]){let yy=yr(Math.log2(Math.max(1,v))*8);g.fillStyle=C.loss;g.globalAlpha=.7;g.fillRect(P,yy,gw-P,1);g.globalAlpha=1;const ty=Math.min(yy,last-12);last=ty;said.push([k+'  '+dur(v),ty-1])}
  // Those of the longest stay in the picture.
  const low=Math.max(0,8-last);g.textAlign='right';g.fillStyle=C.fg;for(const [s,y] of said)g.fillText(s,gw-4,y+low);g.textAlign='left';
  g.fillStyle=C.dim;g.fillText('count, longest bar '+num(m),P,H1-9);
  const B=el('tbody'),t=db.col('t'+kd),d=db.col('d'+kd),th=db.col('th'+kd),c=db.col('c'+kd);for(let i=0;i<t.length;i++){const r=el('tr','',el('td','n',dur(d[i])),el('td','m',clock(t[i])),el('td','',tn(th[i])),el('td','n',String(c[i])));r.tabIndex=0;r.onclick=()=>{const L=lanes.find(l=>l.type==='thread'&&thr[l.i]===th[i])||lanes.find(l=>l.type==='cpu'&&l.i===c[i]);$('timeline').scrollIntoView();range=[t[i],t[i]+d[i]];gotoT(t[i]+d[i],L,Math.max(d[i]*1.5,2000)).then(()=>{a=t[i]-d[i]*.3;b=t[i]+d[i]*1.3;kick()})};r.onkeydown=e=>{if(e.key==='Enter')r.onclick()};B.append(r)}
  const hr=el('tr');for(const [k,s] of [['Longest','n'],['Began',''],['Thread',''],['CPU','n']])hr.append(el('th',s,k));$('longest').replaceChildren(el('table','',el('thead','',hr),B))}
for(const [i,n] of db.names.entries()){const o=el('option','',clean(n));o.value=i;$('kind').append(o)}$('kind').onchange=e=>{kd=+e.target.value;drawDist()};
hc.onclick=e=>{const r=hc.getBoundingClientRect(),t=(e.clientX-r.left-54)/(r.width-54);if(t>=0){to((t-.006)*span,(t+.014)*span);$('timeline').scrollIntoView()}};
// ---- flame graph
const fd=fb.col('depth'),fn=fb.col('name'),fo=fb.col('own'),FN=fd.length,fT=new Float64Array(FN),fE=new Uint32Array(FN),fP=new Int32Array(FN).fill(-1),fX=new Float64Array(FN),fnames=fb.names.map(clean);let fz=-1,fs=0,fq='',fcur=-1,fh=null;
{const s=[];for(let i=0;i<FN;i++){while(s.length&&fd[s.at(-1)]>=fd[i])fE[s.pop()]=i;fP[i]=s.length?s.at(-1):-1;s.push(i)}while(s.length)fE[s.pop()]=FN;for(let i=FN-1;i>=0;i--){fT[i]+=fo[i];if(fP[i]>=0)fT[fP[i]]+=fT[i]}}
let fTot=0;{const nx=new Float64Array(FN);for(let i=0;i<FN;i++){if(fP[i]<0){fX[i]=fTot;fTot+=fT[i]}else{fX[i]=nx[fP[i]];nx[fP[i]]+=fT[i]}nx[i]=fX[i]}}
const FR=18,fbox=$('fbox');
function drawFlame(){if(!FN){$('flame').hidden=true;return}const c=$('fc');c.style.width=fbox.clientWidth+'px';c.style.height=fbox.clientHeight+'px';const [x,w,h]=setup(c),x0=fz<0?0:fX[fz],tw_=fz<0?fTot:fT[fz],sc=w/tw_,hits=fq?fnames.map(n=>n.toLowerCase().includes(fq)):null;fh=[];let hs=0,md=0;
  const rowY=d=>(d+1)*FR-fs;x.fillStyle=C.panel;x.fillRect(0,-fs,w,FR-1);x.fillStyle=C.fg;if(-fs>-FR)x.fillText('all: '+num(fTot),6,FR/2-fs);
  const rec=i=>{};let hitEnd=-1;for(let i=0;i<FN;){const L=(fX[i]-x0)*sc,R=L+fT[i]*sc;if(R<=0||L>=w||R-L<.4){if(hits&&i>=hitEnd){for(let j=i;j<fE[i];){if(hits[fn[j]]){hs+=fT[j];j=fE[j]}else j++}}i=fE[i];continue}
    if(hits&&i>=hitEnd&&hits[fn[i]]){hs+=fT[i];hitEnd=fE[i]}
    const yy=rowY(fd[i]);if(fd[i]>md)md=fd[i];if(yy>-FR&&yy<h){const l=Math.max(0,L),r=Math.min(w,R),hit=hits&&hits[fn[i]];x.globalAlpha=fz>=0&&fd[i]<fd[fz]?.45:hits&&!hit?.3:1;x.fillStyle=hit?C.hit:C.pal[hash(fnames[fn[i]])%12];x.fillRect(l,yy,Math.max(.5,r-l-.6),FR-1);x.globalAlpha=1;
      if(r-l>26){x.save();x.beginPath();x.rect(l+2,yy,r-l-4,FR);x.clip();x.fillStyle=hit?C.bg:C.fg;x.fillText(fnames[fn[i]],l+4,yy+FR/2);x.restore()}if(i===fcur){x.strokeStyle=C.sel;x.lineWidth=2;x.strokeRect(l+1,yy+1,Math.max(2,r-l-2),FR-3)}fh.push(i,l,r,yy)}
    i++}
  fmax=Math.max(0,(md+2)*FR-h);$('fhits').textContent=fq?(100*hs/fTot).toPrecision(3)+' % of all':'';$('ftitle').textContent=num(fTot)+' '+fb.title;fdesc(fcur)}
let fmax=0;const fpathOf=i=>{const s=[];for(;i>=0;i=fP[i])s.unshift(fnames[fn[i]]);return s};
const fdesc=i=>{$('fdet').textContent=i<0?'Point for a share, click to zoom, Backspace to go back. Width is weight; colour only tells neighbours apart.':fnames[fn[i]]+' — '+num(fT[i])+' ('+(100*fT[i]/fTot).toPrecision(3)+' % of all'+(fz>=0?', '+(100*fT[i]/fT[fz]).toPrecision(3)+' % of '+fnames[fn[fz]]:'')+'), itself '+num(fo[i])};
const fAt=e=>{const r=fbox.getBoundingClientRect(),x=e.clientX-r.left,yy=e.clientY-r.top;for(let j=0;j<fh.length;j+=4)if(x>=fh[j+1]&&x<=fh[j+2]&&yy>=fh[j+3]&&yy<fh[j+3]+FR)return fh[j];return -1};
fbox.onpointermove=e=>fdesc(fAt(e));fbox.onclick=e=>{const i=fAt(e);fz=i;fcur=i;drawFlame()};fbox.addEventListener('wheel',e=>{if(e.ctrlKey)return;const o=fs;fs=Math.max(0,Math.min(fmax,fs+e.deltaY));if(o!==fs){e.preventDefault();drawFlame()}},{passive:false});
function flameKey(e){const k=e.key;if(k==='Enter')fz=fcur;else if(k==='Backspace'||k==='Escape'){fcur=fz;fz=fz<0?-1:fP[fz]}else if(k==='ArrowDown')fcur=fcur<0?0:fcur+1<fE[fcur]?fcur+1:fcur;else if(k==='ArrowUp')fcur=fcur<0?-1:fP[fcur];else if(k==='ArrowRight'){if(fcur>=0&&fE[fcur]<FN&&fP[fE[fcur]]===fP[fcur])fcur=fE[fcur]}else if(k==='ArrowLeft'){if(fcur>=0){let p=fP[fcur]+1,l=-1;while(p<fcur){l=p;p=fE[p]}if(l>=0&&fP[l]===fP[fcur])fcur=l}}else return 0;e.preventDefault();if(fcur>=0){const yy=(fd[fcur]+1)*FR;if(yy<fs)fs=yy;if(yy+FR>fs+fbox.clientHeight)fs=yy+FR-fbox.clientHeight}drawFlame();return 1}
$('fq').oninput=e=>{fq=e.target.value.trim().toLowerCase();drawFlame()};
// ---- tables
function table(id,cap,heads,rows,click){const B=el('tbody');rows.forEach((r,i)=>{const t=el('tr');r.forEach((v,j)=>t.append(el('td',heads[j][1],v)));t.tabIndex=0;t.onclick=()=>click(i);t.onkeydown=e=>{if(e.key==='Enter')click(i)};B.append(t)});const hr=el('tr');for(const [h,c] of heads)hr.append(el('th',c||'',h));$(id).replaceChildren(el('table','',el('caption','',cap),el('thead','',hr),B))}
const find=s=>{$('q').value=s;search(s);$('timeline').scrollIntoView()};
{const r=evs.map((e,i)=>i).sort((x,y)=>evs[y].n-evs[x].n);table('evt',`Events: ${r.length}, records ${num(M.records)}`,[['Event',''],['Records','n'],['Share','n']],r.map(i=>[evs[i].name,num(evs[i].n),(100*evs[i].n/Math.max(1,M.records)).toFixed(1)+' %']),i=>find(evs[r[i]].name));
const t=ths.map((x,i)=>i).filter(i=>i).sort((x,y)=>ths[y].run-ths[x].run||ths[y].rec-ths[x].rec).slice(0,500);table('tht',`Threads: ${ths.length-1}`+(t.length<ths.length-1?', the first 500':''),[['Thread',''],['tid','n'],['Ran','n'],['Records','n']],t.map(i=>[ths[i].comm,String(ths[i].tid),M.has.sched?dur(ths[i].run):'–',num(ths[i].rec)]),i=>find(ths[t[i]].comm));
if(M.lost.length)table('lst',`Losses: ${M.lost.length}`,[['CPU','n'],['After',''],['Length','n'],['Lost','n']],M.lost.map(l=>[String(l[2]),clock(l[0]),dur(l[1]-l[0]),num(l[3])+(l[4]==='overrun'?' sub-buffers':'')]),i=>{const l=M.lost[i];$('timeline').scrollIntoView();const L=lanes.find(x=>x.type==='cpu'&&x.i===l[2]);to(l[0]-(l[1]-l[0]),l[1]+(l[1]-l[0]));show(L);pick({L,t:(l[0]+l[1])/2,loss:l})});else $('lst').remove()}
box.style.height=Math.max(120,Math.min(total+RUL,Math.max(300,innerHeight-390)))+'px';
{const g=$('legend');for(const [n,i] of legend.slice(0,11)){const k=el('span','lg',el('i','k'+i),n);k.onclick=()=>{$('q').value=n;search(n)};g.append(k)}if(order.size>11)g.append(el('span','lg',el('i','k11'),'others'))}
theme();size();describe(null);drawDist();drawFlame();new ResizeObserver(()=>{size();drawDist();drawFlame()}).observe($('tl'));
const sum=(m,L)=>{let s=0;for(const v of m[L])s+=v;return s};
window.relaydTest={ready:performance.now()-T0,M,lanes,frames,tiles,get view(){return {a,b,sy,W,H,LAB,RUL,D}},get sel(){return sel},get hover(){return hover},to,px,at,pick,draw,sums:()=>LV.map(L=>sum(cpuEv,L)),perCpu:()=>[...Array(N).keys()].map(c=>{let s=0,L=LV[0];for(let i=0;i<L;i++)s+=cpuEv[L][c*L+i];return s}),fTot,flip,clock,cb,tw,has,open,drawFlame,fcount:()=>fh.length/4};
root.dataset.ready='1';
})();
