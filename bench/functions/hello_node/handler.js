"use strict";

module.exports = async (event, context) => "hello\n";
