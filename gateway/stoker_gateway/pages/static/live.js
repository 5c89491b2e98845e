// Goes on with a run's log where the page ends. Without this script the page has a link for that.
"use strict";
const log = document.getElementById("log");
const events = new EventSource(log.dataset.events);
const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;

document.getElementById("refresh").hidden = true;
log.scrollTop = log.scrollHeight;
events.addEventListener("line", (event) => {
  const follow = isAtEnd();
  log.insertAdjacentHTML("beforeend", event.data); // made and escaped by the platform
  if (follow) log.scrollTop = log.scrollHeight;
});
events.addEventListener("head", (event) => {
  document.getElementById("run").outerHTML = event.data;
});
events.addEventListener("end", () => {
  events.close();
  document.getElementById("act").hidden = true; // it is for a run that goes
});
